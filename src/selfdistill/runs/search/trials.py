"""Trials: networks that are trained to be measured on validation images. Optuna proposes them and stops the weak."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec
from msgspec.structs import replace as replaced

from selfdistill.config import TrainConfig
from selfdistill.config.train_config import ResolvedTrainConfig
from selfdistill.data import ImageData
from selfdistill.data.sets import without_test
from selfdistill.files import lock, make_folder, open_lock
from selfdistill.progress import OnProgress
from selfdistill.records.search import Metric, Trial
from selfdistill.runs.executor import Task, with_cpus
from selfdistill.runs.failures import Failure
from selfdistill.runs.grid import slug
from selfdistill.runs.search.space import default_of, open_arguments, rates_of, with_arguments, with_rates
from selfdistill.training import train
from selfdistill.training.run import StoppedError
from selfdistill.training.task import Row

if TYPE_CHECKING:
    import optuna

JOURNAL = "search.journal"
"""The trials, as Optuna keeps them, in the folder of a search."""

HALVINGS = 2
"""Successive halving: after a quarter and half of the epochs the better half of the trials goes on."""

_STARTUP = 5  # trials at random before the sampler learns from them


@dataclass(frozen=True)
class Search:
    """The trials of one search: a journal in its folder, which several machines may write.

    Attributes:
        out: the folder.
        recipe: everything but the method, its settings, the seed and what is in ``rates``.
        resolved: the same, with nothing left open.
        methods: as they are asked for; each has its own study.
        metric: what is made small.
        rates: whether the learning rate and the weight decay are searched too.
        owner: names this process in the journal.
    """

    out: Path
    recipe: TrainConfig
    resolved: ResolvedTrainConfig
    methods: tuple[str, ...]
    metric: Metric
    rates: bool
    owner: str

    @classmethod
    def join(
        cls,
        out: Path,
        recipe: TrainConfig,
        resolved: ResolvedTrainConfig,
        methods: Sequence[str],
        metric: Metric,
        rates: bool,
    ) -> Self:
        """Begin a search in a folder, or take part in the one that is there."""
        make_folder(out / "searchers")
        return cls(out, recipe, resolved, tuple(methods), metric, rates, uuid.uuid4().hex[:12])

    def study(self, method: str) -> "optuna.Study":
        """Return a method's trials. Its sampler draws by the method and the number of trials: a repeat is the same."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.create_study(
                study_name=method,
                storage=_storage(self.out),
                load_if_exists=True,
                pruner=pruner(self.resolved),
            )
        except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
            raise ValueError(f"{self.out / JOURNAL} is damaged: choose another `out`, or delete {self.out}") from None
        seed = self.methods.index(method) * 1000 + len(study.trials)
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=_STARTUP, multivariate=True, seed=seed)
        return study

    def ask(self, method: str) -> Task:
        """Return a method's next trial as a task; the first has the method's defaults, so a search loses nothing."""
        import optuna

        study, space = self.study(method), self._space(method)
        if not study.trials:
            known = {name: default_of(method, name) for name in open_arguments(method)}
            study.enqueue_trial(known | {name: getattr(self.resolved, name) for name in space if name not in known})
        spread: dict[str, Any] = {
            name: optuna.distributions.FloatDistribution(one.low, one.high, log=one.log) for name, one in space.items()
        }
        trial = study.ask(spread)
        trial.set_user_attr("owner", self.owner)
        return self._task(method, trial.number, trial._trial_id, trial.params)

    def left_behind(self) -> list[Task]:
        """Return the trials that a process which is gone had begun: they go on from their checkpoints."""
        import optuna

        found = []
        for method in self.methods:
            study = self.study(method)
            for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
                if not self._is_at_work(str(trial.user_attrs.get("owner"))):
                    optuna.trial.Trial(study, trial._trial_id).set_user_attr("owner", self.owner)
                    found.append(self._task(method, trial.number, trial._trial_id, trial.params))
        return found

    def tell(self, trial: Trial) -> None:
        """Note how a trial ended."""
        import optuna

        states = optuna.trial.TrialState
        state = {"finished": states.COMPLETE, "stopped": states.PRUNED, "failed": states.FAIL}[trial.state]
        study = self.study(trial.of)
        value = trial.loss(self.metric) if trial.state == "finished" else None
        (known,) = (one for one in study.get_trials(deepcopy=False) if one.number == trial.number)
        study._storage.set_trial_user_attr(known._trial_id, "trial", msgspec.to_builtins(trial))
        study.tell(trial.number, value, state)

    def trials(self) -> tuple[Trial, ...]:
        """Return every trial that has ended, on any machine, in the order in which they ended."""
        ended = [
            (one.datetime_complete, one.user_attrs["trial"])
            for method in self.methods
            for one in self.study(method).get_trials(deepcopy=False)
            if one.state.is_finished() and "trial" in one.user_attrs
        ]
        return tuple(msgspec.convert(trial, Trial) for _, trial in sorted(ended, key=lambda pair: str(pair[0])))

    def begun(self, method: str) -> int:
        """Return how many trials of a method were begun, on any machine."""
        return len(self.study(method).trials)

    def importance(self, method: str) -> dict[str, float]:
        """Return the share of the differences between a method's finished trials that each setting explains.

        Empty where fewer than `_STARTUP` trials are finished, or all are equally good.
        """
        import optuna

        study, names = self.study(method), list(self._space(method))
        finished = [one.value for one in study.trials if one.state == optuna.trial.TrialState.COMPLETE]
        if len(names) < 2 or len(finished) < _STARTUP or len(set(finished)) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return {
            name: float(x) for name, x in optuna.importance.get_param_importances(study, evaluator=evaluator).items()
        }

    def planned(self, trial: Trial) -> TrainConfig:
        """Return the recipe of a trial's method and rates, without its seed and its share of validation images."""
        return with_rates(replace(self.recipe, method=trial.method), self.resolved, trial.rates)

    def _space(self, method: str) -> dict[str, Any]:
        return open_arguments(method) | (rates_of(self.resolved) if self.rates else {})

    def _task(self, method: str, number: int, identity: int, params: Mapping[str, float]) -> Task:
        values = {name: float(f"{value:.3g}") for name, value in params.items()}
        rates = {name: value for name, value in values.items() if "." not in name}
        trial = Trial(of=method, number=number, method=with_arguments(method, values), rates=rates, seed=number)
        recipe = replace(self.planned(trial), seed=number)
        folder = trial_folder(self.out, trial)
        return Task(folder, recipe, TrialJob(recipe, trial, self.out, folder, identity, self.metric))

    def _is_at_work(self, owner: str) -> bool:
        """Whether a process holds its lock."""
        path = self.out / "searchers" / f"{owner}.lock"
        if owner == self.owner or not path.is_file():
            return owner == self.owner
        with open_lock(path) as file:
            return not lock(file)


def trial_folder(out: Path, trial: Trial) -> Path:
    """Return where a trial's network is, in the folder of a search."""
    return out / "trials" / f"{slug(trial.of)}-{trial.number}"


def pruner(recipe: TrainConfig) -> "optuna.pruners.BasePruner":
    """Return successive halving over a recipe's epochs."""
    from optuna.pruners import SuccessiveHalvingPruner

    first = max(1, (recipe.epochs or 1) // 2**HALVINGS)
    return SuccessiveHalvingPruner(min_resource=first, reduction_factor=2)


def _storage(out: Path) -> "optuna.storages.JournalStorage":
    """Return the journal of a search's folder; unlike the default its lock works on every system."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path = str(out / JOURNAL)
    return JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path)))


@dataclass(frozen=True)
class TrialJob:
    """Trains one network and measures it on the validation images; the test images are out of its reach.

    After each epoch that is measured it asks the journal whether it is among the better half that goes on.

    Attributes:
        recipe: of this trial.
        trial: what is known of it.
        out: the folder of the search.
        folder: of the trial.
        identity: of the trial, in the journal.
        metric: what is made small.
    """

    recipe: TrainConfig
    trial: Trial
    out: Path
    folder: Path
    identity: int
    metric: Metric

    def __call__(self, *, data: ImageData, cpus: int | None = None, progress: OnProgress) -> Trial:
        """Train, and return the trial as it ended."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.load_study(study_name=self.trial.of, storage=_storage(self.out), pruner=pruner(self.recipe))
        watched = optuna.trial.Trial(study, self.identity)

        def stop(row: Row) -> bool:
            if row.get("val_nll") is None:
                return False
            watched.report(self._measured(row).loss(self.metric), int(row["epoch"] or 0))
            return watched.should_prune()

        started, recipe = time.perf_counter(), with_cpus(self.recipe, cpus)
        try:
            ended = self._measured(
                train(recipe, self.folder, data=without_test(data), progress=progress, stop=stop).rows[-1]
            )
        except StoppedError as stopped:
            ended = replaced(self._measured(stopped.rows[-1]), state="stopped")
        return replaced(ended, seconds=time.perf_counter() - started)

    def failed(self, failure: Failure) -> Trial:
        """Return the trial as one that failed."""
        return replaced(self.trial, state="failed", reason=failure.reason.replace("`", ""))

    def _measured(self, row: Row) -> Trial:
        return replaced(self.trial, epochs=int(row["epoch"] or 0), top1=row["val_top1"], nll=row["val_nll"])
