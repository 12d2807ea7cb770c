"""``tune``: search by validation images within a budget, then train what was found and measure it on test images."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from msgspec.structs import replace as replaced
from rich.console import Console

from selfdistill.config import TrainConfig
from selfdistill.config.duration import parse_duration
from selfdistill.config.outlook import outlook
from selfdistill.config.train_config import ResolvedTrainConfig
from selfdistill.data import ImageData
from selfdistill.data.fingerprint import changes
from selfdistill.data.sets import VAL_FRACTION, hold_out_validation
from selfdistill.errors import ArgumentError, blaming, check_range
from selfdistill.files import lock, make_folder, open_lock, refuse_link
from selfdistill.progress import Display, clock, make_console, print_line
from selfdistill.records import VALIDATION, Predictions, RunRecord
from selfdistill.records.search import SEARCH, Metric, SearchRecord, Trial
from selfdistill.runs.executor import Executor, Listener, Task
from selfdistill.runs.failures import Failure
from selfdistill.runs.folders import check_writable
from selfdistill.runs.grid import ExecutorConfig, PlannedRun, check_other_processes, describe_plan, run_grid, slug
from selfdistill.runs.search.space import open_arguments
from selfdistill.runs.search.trials import JOURNAL, Search, TrialJob, trial_folder
from selfdistill.text import count_of
from selfdistill.timing.budget import BUDGET, Timing, epochs_for_budget, measure_step_seconds
from selfdistill.training import random_state
from selfdistill.training.classification import assemble
from selfdistill.training.export import description, save_description
from selfdistill.training.folder import RunFolder
from selfdistill.training.record import recipe_values
from selfdistill.training.run import load
from selfdistill.training.session import make_fabric
from selfdistill.training.trackers import check_tracker

LEAST_TRIALS, MOST_TRIALS = 5, 50
"""Of each method, where the budget decides."""

ON_A_CLUSTER = 32
"""Trials that a cluster gets at a time."""

_OWN = (SEARCH, JOURNAL, "searchers", "trials", "final", "best", "best.new")  # in the folder of a search
_SHARE = 0.6  # of a whole trial's time that one takes on average, since the weak are stopped


@dataclass(frozen=True)
class SearchConfig:
    """How to search.

    Attributes:
        methods: as text; the first is the baseline, and each gets as many trials as the others. What an expression
            leaves open of a method's searched arguments is searched, what it gives is kept.
        metric: "nll" or "accuracy" on the validation images.
        rates: search the learning rate and the weight decay too, for every method.
        trials: of each method; None: what the budget allows.
        epochs: of a trial that is not stopped; None: what the budget allows, at most those the recipe has by default.
        budget: for everything, such as ``"30m"``; None: `BUDGET`.
        seeds: with which the winner and the baseline are trained at the end.

    Raises:
        ArgumentError: a number out of range, fewer than two methods, one that is not valid, or one twice, or a budget
            that would be ignored.
    """

    methods: tuple[str, ...]
    metric: Metric = "nll"
    rates: bool = False
    trials: int | None = None
    epochs: int | None = None
    budget: str | None = None
    seeds: int = 3

    def __post_init__(self) -> None:
        """Check everything."""
        check_range("trials", self.trials, 1, 10_000)
        check_range("epochs", self.epochs, 1, 10**6)
        check_range("seeds", self.seeds, 1, 1000)
        if self.budget is not None and self.trials is not None and self.epochs is not None:
            raise ArgumentError("budget", "would be ignored: `trials` and `epochs` say how long it takes")
        parse_duration(self.budget or BUDGET)
        with blaming("methods"):
            for method in self.methods:
                open_arguments(method)
        if len(set(self.methods)) != len(self.methods) or len(self.methods) < 2:
            raise ArgumentError("methods", "must be two or more different ones: the baseline first")


@dataclass(frozen=True)
class Tuned:
    """What came of a search.

    Attributes:
        search: every trial and what was chosen.
        records: of the tuned baseline and of the winner, trained on training and validation images, with each seed.
    """

    search: SearchRecord
    records: list[RunRecord]


def tune(
    recipe: TrainConfig,
    config: SearchConfig,
    *,
    out: Path,
    executor: ExecutorConfig,
    dry_run: bool = False,
    data: ImageData | None = None,
) -> Tuned | None:
    """Search; train the winner and the tuned baseline on training and validation images; measure both on the test ones.

    The search goes on where it was stopped, and several machines that share the folder take part in it.

    Args:
        recipe: everything but the method, its settings, the seed and the epochs.
        data: the images, if they are there already; None loads those of the recipe.

    Returns:
        None of a dry run.

    Raises:
        ValueError: a budget too small, no trial that finished, or what loading and training raise.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; the trials in progress are saved.
    """
    check_writable(out)
    for name in _OWN:
        refuse_link(out / name)
    check_tracker(recipe.log)
    check_other_processes(recipe, data, executor.jobs)
    given, data = data, load(recipe, data)
    if data.val is None:
        recipe = replace(recipe, val_fraction=VAL_FRACTION)
        data = hold_out_validation(data, VAL_FRACTION)
    assert data.val is not None
    console = make_console()
    with console.status("measuring how long a step takes"):
        recipe, search = _plan(recipe, config, data, out, executor)
    resolved = recipe.resolve(data)
    print_line(console, describe_plan(recipe, data))
    expected = outlook(resolved, config.methods, searched=True)
    for line in (*filter(None, [expected]), *describe_search(search, config, resolved)):
        print_line(console, line)
    if dry_run:
        return None
    make_folder(out)
    at_once = ON_A_CLUSTER if executor.ray else executor.jobs
    trials = Search.join(out, recipe, resolved, config.methods, config.metric, config.rates)
    with _taking_part(trials):
        search = _search(trials, search, config, executor.make(data), at_once=at_once, console=console)
    tuned = [trials.planned(trial) for trial in search.chosen]
    runs = [run for one in tuned for run in _final_runs(one, config.seeds)]
    with open_lock(out / ".lock") as file:  # of several machines one trains these, and the others wait
        lock(file, wait=True)
        with Display(console, jobs=len(runs), every=30.0) as display:
            whole = load(runs[0].recipe, given)
            records = run_grid(runs, out / "final", data=whole, executor=executor.make(whole), display=display)
    return Tuned(search, records)


def _check_methods(recipe: TrainConfig, config: SearchConfig, data: ImageData) -> None:
    """Refuse a method that cannot train this network, before others take hours."""
    for method in config.methods:
        with blaming("methods"), random_state.preserved():
            resolved = replace(recipe, method=method).resolve(data)
            assemble(replace(resolved, linear_probe=False), data, make_fabric(resolved))


def keep_best(tuned: Tuned, method: str, out: Path) -> Path:
    """Copy a method's first network to ``out/best``, with its trial's temperature and outputs on validation images.

    Args:
        tuned: what came of the search in ``out``.

    Returns:
        The folder, for ``predict`` and ``export``.
    """
    (trial,) = (one for one in tuned.search.chosen if one.method == method)
    record = next(one for one in tuned.records if one.method == method)
    source, best = out / "final" / f"{slug(method)}-seed{record.seed}", out / "best"
    fresh = out / "best.new"
    for old in (fresh, best):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(source, fresh, ignore=shutil.ignore_patterns("checkpoints", ".lock"))
    validated = trial_folder(out, trial)
    if (outputs := Predictions.load(validated, None, VALIDATION)) is not None:
        outputs.save(fresh, VALIDATION)
        save_description(fresh, description(fresh) | {"temperature": description(validated)["temperature"]})
    fresh.rename(best)
    return best


def describe_search(search: SearchRecord, config: SearchConfig, resolved: ResolvedTrainConfig) -> list[str]:
    """Return the plan: what is searched, how often, and what is trained in the end."""
    lines = [
        f"{count_of(search.per_method, 'trial')} of each method, of {count_of(search.epochs, 'epoch')}; after a "
        f"quarter and half of them the better half goes on; chosen by the {_NAMES[config.metric]} on {search.val_n:,} "
        f"validation images ({search.val_split}), never by test images"
    ]
    for method in config.methods:
        names = [*open_arguments(method), *(("lr", "weight_decay") if config.rates else ())]
        said = f"searched: {', '.join(names)}" if names else "nothing to search; its trials are other seeds"
        lines.append(f"  {method}: {said}")
    runs = count_of(config.seeds, "seed")
    return [*lines, f"then the baseline and the best other one with {runs} each, on training and validation images"]


_NAMES = {"nll": "NLL", "accuracy": "accuracy"}


def _plan(
    recipe: TrainConfig, config: SearchConfig, data: ImageData, out: Path, executor: ExecutorConfig
) -> tuple[TrainConfig, SearchRecord]:
    """Return the recipe with its epochs, and the search that is there, or how long a new one may be."""
    assert data.val is not None
    if (out / SEARCH).is_file():
        there = SearchRecord.load(out)
        same = config.trials in (None, there.per_method) and config.epochs in (None, there.epochs)
        if there.metric != config.metric or not same:
            raise ArgumentError("out", f"is {out}, which holds a search by other settings: choose another")
        recipe = replace(recipe, epochs=there.epochs)
        if there.fingerprint:
            changed = changes(there.fingerprint, data.fingerprint)
            RunFolder(out).check(recipe.resolve(data), there.recipe, changed)
        return recipe, there
    seconds, parallel = parse_duration(config.budget or BUDGET), float(executor.jobs)
    epochs, trials = config.epochs, config.trials
    if epochs is None or trials is None:
        timings = [measure_step_seconds(replace(recipe, method=method), data) for method in config.methods]
        final = [max(timings, key=lambda one: one.epoch)] * (2 * config.seeds)
        if epochs is None:
            least = [one for one in timings for _ in range(round(_SHARE * (trials or LEAST_TRIALS)) or 1)]
            epochs = min(recipe.resolve(data).epochs, epochs_for_budget(seconds, [*least, *final], parallel))
        if trials is None:
            trials = _trials_for_budget(seconds * parallel, timings, final, epochs)
    else:
        _check_methods(recipe, config, data)
    recipe = replace(recipe, epochs=epochs)
    search = SearchRecord(
        metric=config.metric,
        epochs=epochs,
        per_method=trials,
        val_n=len(data.val),
        val_split=data.val_split_description,
        recipe=recipe_values(recipe.resolve(data)),
        fingerprint=data.fingerprint,
    )
    return recipe, search


def _trials_for_budget(seconds: float, timings: Sequence[Timing], final: Sequence[Timing], epochs: int) -> int:
    left = seconds - sum(one.run(epochs) for one in final)
    each = sum(one.run(epochs) for one in timings) * _SHARE
    return min(max(int(left / each), 1), MOST_TRIALS)


@contextmanager
def _taking_part(search: Search) -> Iterator[None]:
    """Hold this process's lock: while it is held, its trials are its own."""
    path = search.out / "searchers" / f"{search.owner}.lock"
    with open_lock(path) as file:
        lock(file)
        yield
    path.unlink(missing_ok=True)


def _search(
    trials: Search,
    search: SearchRecord,
    config: SearchConfig,
    executor: Executor,
    *,
    at_once: int,
    console: Console,
) -> SearchRecord:
    """Train the trials that are missing, round by round, and return the record with what was chosen."""
    started, seconds = time.monotonic(), parse_duration(config.budget or BUDGET)
    search.save(trials.out / SEARCH)
    with Display(console, jobs=search.per_method * len(config.methods), every=30.0) as display:
        tasks = trials.left_behind() or _next_round(trials, search, at_once)
        while tasks:
            _train_round(trials, tasks, executor, display)
            replaced(search, trials=trials.trials()).save(trials.out / SEARCH)
            late = config.trials is None and time.monotonic() - started > seconds
            tasks = [] if late else _next_round(trials, search, at_once)
    ended = trials.trials()
    baseline, *others = config.methods
    search = replaced(
        search,
        trials=ended,
        chosen=(_best(ended, [baseline], config.metric), _best(ended, others, config.metric)),
        importance={method: trials.importance(method) for method in config.methods},
    )
    ours, theirs = search.chosen
    if ours.method == theirs.method:
        raise ValueError(f"the baseline and the best other method are both {ours.method}: compare other `methods`")
    search.save(trials.out / SEARCH)
    return search


def _best(trials: Sequence[Trial], methods: Sequence[str], metric: Metric) -> Trial:
    """Return the best finished trial of some methods."""
    ended = [trial for trial in trials if trial.of in methods]
    finished = [trial for trial in ended if trial.state == "finished"]
    if not finished:
        reasons = [trial.reason for trial in ended if trial.reason]
        raise ValueError(f"no trial of {' or '.join(methods)} was finished: {(reasons or ['the time was up'])[0]}")
    return min(finished, key=lambda trial: trial.loss(metric))


def _next_round(trials: Search, search: SearchRecord, at_once: int) -> list[Task]:
    """Return as many new trials of each method as the others, so that a search that is stopped is fair."""
    missing = {method: search.per_method - trials.begun(method) for method in trials.methods}
    size = -(-at_once // len(missing))
    return [trials.ask(method) for method, count in missing.items() for _ in range(min(size, count))]


def _train_round(trials: Search, tasks: Sequence[Task], executor: Executor, display: Display) -> None:
    jobs = {task.folder: task.job for task in tasks}

    def ended(folder: Path, trial: Trial) -> None:
        trials.tell(trial)
        display.finish(folder.name, describe_trial(trial))

    def failed(folder: Path, failure: Failure) -> None:
        job = jobs[folder]
        assert isinstance(job, TrialJob)
        ended(folder, job.failed(failure))

    listener = Listener(lambda folder, event: display.update(folder.name, event), ended, failed)
    executor.execute(tasks, listener, f"run the same command again to go on ({trials.out})")


def describe_trial(trial: Trial) -> str:
    """Return a line on a trial that has ended."""
    if trial.state == "failed":
        return f"{trial.method} failed: {trial.reason}"
    rates = "".join(f", {name} {value:g}" for name, value in trial.rates.items())
    where = "" if trial.state == "finished" else f"stopped after {count_of(trial.epochs, 'epoch')}: "
    return f"{trial.method}{rates}: {where}validation {trial.top1:.1%}, NLL {trial.nll:.3f}, {clock(trial.seconds)}"


def _final_runs(tuned: TrainConfig, seeds: int) -> list[PlannedRun]:
    """Return the runs of a tuned method on training and validation images."""
    whole = replace(tuned, val_fraction=0.0, train_on_val=not tuned.val_fraction, keep="last", patience=None)
    return [PlannedRun(f"{slug(tuned.method)}-seed{seed}", replace(whole, seed=seed)) for seed in range(seeds)]
