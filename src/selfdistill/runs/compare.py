"""Compare methods on one set of images: how long it may take, then the runs."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
from rich.console import Console

from selfdistill.config import TrainConfig
from selfdistill.config.duration import parse_duration
from selfdistill.config.outlook import outlook
from selfdistill.data import ImageData
from selfdistill.data.decode import cpu_count
from selfdistill.errors import ArgumentError, check_range
from selfdistill.evaluation.suite import score
from selfdistill.network import default_device
from selfdistill.progress import Display, make_console, print_line
from selfdistill.records import LINEAR_PROBE, LinearProbeRecord, RunRecord, SuiteRecord
from selfdistill.runs.evaluation import (
    BASIC_EVALUATION,
    EvaluationConfig,
    count_forwards,
    fit_to_budget,
    load_ood_sets,
    open_corruptions,
)
from selfdistill.runs.executor import Executor, share_cpus
from selfdistill.runs.failures import FailedRunsError, forget_failures, noted_failure
from selfdistill.runs.folders import check_writable
from selfdistill.runs.grid import (
    ExecutorConfig,
    PlannedRun,
    check_other_processes,
    describe_plan,
    is_finished,
    is_trained,
    plan_runs,
    run_grid,
)
from selfdistill.timing.budget import BUDGET, Timing, epochs_for_budget, estimate, measure_step_seconds
from selfdistill.training import random_state
from selfdistill.training.classification import assemble
from selfdistill.training.run import check_run, load
from selfdistill.training.session import make_fabric


def run_comparison(
    recipe: TrainConfig,
    methods: Sequence[str],
    *,
    seeds: int,
    epochs: int | None,
    budget: str | None = None,
    jobs: int,
    out: Path,
    evaluation: EvaluationConfig = BASIC_EVALUATION,
    fit: bool = False,
    retry_failed: bool = False,
    data: ImageData | None = None,
) -> list[RunRecord]:
    """Train and measure every method with every seed and return the records, the first method's first.

    Args:
        recipe: everything but method, seed and epochs.
        methods: methods as text; the first is what the others are compared with.
        seeds: how many seeds, from 0 up.
        epochs: passes over the training images, or None: those of the runs that are in ``out`` already; without such,
            as many as fit in the budget, at most those that the recipe has by default.
        budget: how long everything may take, such as ``"30m"``; None: `BUDGET`.
        jobs: processes at a time.
        out: the folder; an interrupted comparison is resumed.
        evaluation: what is measured of each network beyond accuracy and calibration.
        fit: measure on fewer images, or not at all, so that it takes at most a quarter of the budget.
        retry_failed: also try runs again that diverged before.
        data: the images, if they are there already; None loads those of the recipe.

    Raises:
        FailedRunsError: runs failed; the others are done, and the error holds their records.
        ValueError: no method, a number out of range, a budget too small for one epoch, or what loading and training
            raise.
    """
    check_range("seeds", seeds, 1, 1000)
    check_range("jobs", jobs, 1, 1024)
    check_range("epochs", epochs, 1, 10**6)
    seconds = _seconds(budget, epochs)
    runs = plan_runs(recipe, methods, range(seeds))
    check_writable(out)
    epochs = epochs or _epochs_of_earlier_runs(runs, out)
    check_other_processes(recipe, data, jobs)
    data = load(recipe, data)
    if epochs is not None:
        runs = _with_epochs(runs, epochs)
        for run in runs:  # a folder of another recipe or of other images is refused now, not after hours of other runs
            check_run(run.recipe.resolve(data), out / run.name, data)
    console = make_console()
    # Loaded now, so that a wrong set is refused before any training.
    open_corruptions(evaluation, data)
    ood_n = sum(len(one.split) for one in load_ood_sets(evaluation, data))
    measured = next((path for run in runs if (path := out / run.name / "evaluation.json").is_file()), None)
    if fit and measured:  # a resumed comparison is measured as its first runs were
        max_images = SuiteRecord.load(measured).config.max_images
        evaluation = msgspec.structs.replace(evaluation, max_images=max_images)
    if retry_failed:
        forget_failures(out / run.name for run in runs)
    if to_train := _runs_to_train(runs, out, data):
        with console.status("measuring how long a step takes"):
            timings = _measured(to_train, data, jobs, steps=20 if epochs is None else 5)
        parallel = _parallel_runs(len(to_train), jobs, on_cpu=default_device().type == "cpu")
        image_seconds = max(timing.evaluation for timing in timings) / len(data.test)
        if fit and not measured:
            max_forwards = seconds * parallel / 4 / len(runs) / image_seconds
            evaluation = fit_to_budget(evaluation, len(data.test), ood_n, max_forwards)
        more = image_seconds * count_forwards(evaluation, len(data.test), ood_n)
        timings = [replace(timing, final=timing.final + more) for timing in timings]
        epochs = epochs or min(recipe.resolve(data).epochs, epochs_for_budget(seconds, timings, parallel))
        # Not before: a wrong model or budget is one line, the error's.
        _print_plan(console, replace(recipe, epochs=epochs), data, methods)
        if fit and not evaluation.measures:
            print_line(
                console,
                f"measuring accuracy and calibration alone: more does not fit in a budget of {budget or BUDGET}",
            )
        print_line(console, estimate(timings, epochs, parallel) + (f", {jobs} at a time" if jobs > 1 else ""))
    if finished := sum(is_finished(run, out, evaluation) for run in runs):
        print_line(console, f"{finished} of {len(runs)} runs are in {out} already")
    if recipe.fine_tunes:
        out.mkdir(parents=True, exist_ok=True)
        with console.status("fitting a linear probe"):
            probe = measure_linear_probe(runs[0].recipe, data, out, any(is_trained(run, out) for run in runs))
        print_line(console, _describe_probe(probe))
    runs = _with_epochs(runs, epochs or recipe.resolve(data).epochs)
    return _run(runs, out, data, evaluation, ExecutorConfig(jobs).make(data), console)


def _seconds(budget: str | None, epochs: int | None) -> float:
    if epochs is not None and budget is not None:
        raise ArgumentError("budget", "and `epochs` exclude each other")
    return parse_duration(budget or BUDGET)


def _print_plan(console: Console, recipe: TrainConfig, data: ImageData, methods: Sequence[str]) -> None:
    print_line(console, describe_plan(recipe, data))
    if expected := outlook(recipe.resolve(data), methods):
        print_line(console, expected)


def _run(
    runs: Sequence[PlannedRun],
    out: Path,
    data: ImageData,
    evaluation: EvaluationConfig,
    executor: Executor,
    console: Console,
) -> list[RunRecord]:
    """Do what is missing of the runs; return the records by method and seed."""
    order = list(dict.fromkeys(run.recipe.method for run in runs))

    def place(record: RunRecord) -> tuple[int, int]:
        return order.index(record.method), record.seed

    with Display(console, jobs=len(runs), every=30.0) as display:
        try:
            records = run_grid(runs, out, data=data, evaluation=evaluation, executor=executor, display=display)
        except FailedRunsError as failed:
            raise FailedRunsError(failed.failures, sorted(failed.records, key=place)) from None
    return sorted(records, key=place)


def _runs_to_train(runs: Sequence[PlannedRun], out: Path, data: ImageData) -> list[PlannedRun]:
    """Return the runs that are not trained, without those of which it is noted that they diverge."""
    missing = [run for run in runs if not is_trained(run, out)]
    return [run for run in missing if noted_failure(out / run.name, run.recipe, data.fingerprint) is None]


def _with_epochs(runs: Sequence[PlannedRun], epochs: int) -> list[PlannedRun]:
    return [replace(run, recipe=replace(run.recipe, epochs=epochs)) for run in runs]


def _epochs_of_earlier_runs(runs: Sequence[PlannedRun], out: Path) -> int | None:
    # A comparison that goes on must not measure the budget anew: its runs belong to recipes with these epochs.
    recipes = [out / run.name / "recipe.yaml" for run in runs]
    return next((TrainConfig.from_yaml(recipe).epochs for recipe in recipes if recipe.is_file()), None)


def _measured(runs: Sequence[PlannedRun], data: ImageData, jobs: int, steps: int) -> list[Timing]:
    """Return the timing of each run, measured once a method in so many steps."""
    of_method: dict[str, Timing] = {}
    for run in runs:
        if run.recipe.method not in of_method:
            of_method[run.recipe.method] = measure_step_seconds(share_cpus(run.recipe, jobs), data, steps)
    return [of_method[run.recipe.method] for run in runs]


def _parallel_runs(runs: int, jobs: int, *, on_cpu: bool) -> float:
    """How many runs are in progress at a time, on average: on a CPU each has processors of its own, a GPU is shared.

    Example:
        >>> _parallel_runs(runs=3, jobs=1, on_cpu=True), _parallel_runs(runs=3, jobs=2, on_cpu=False)
        (1.0, 1.0)
    """
    jobs = min(jobs, cpu_count()) if on_cpu else 1
    return runs / -(-runs // jobs)


def measure_linear_probe(recipe: TrainConfig, data: ImageData, out: Path, trained: bool) -> LinearProbeRecord:
    """Fit a linear probe to the training images, measure it on the test images, and write ``out/linear_probe.json``.

    The one that is there is returned if it is of the same images and weights; of others it is refused where runs are
    ``trained``.
    """
    started = time.perf_counter()
    with random_state.preserved():
        resolved = replace(recipe.resolve(data), linear_probe=False)  # no second one for the head to start from
        task = assemble(resolved, data, make_fabric(resolved)).task
        of = task.feature_key() + ("-balanced" if resolved.balances_classes else "")
        if (known := LinearProbeRecord.beside(out)) is not None:
            if known.of == of:
                return known
            if trained:
                raise ArgumentError(
                    "weights", f"are not those of the runs in {out}: restore them, or choose another `out`"
                )
        probe, test = task.linear_probe(), task.test_features()
    evaluation = score(probe(test), data.test.labels, train_n=len(data.train))
    record = LinearProbeRecord(
        of=of, evaluation=evaluation, features=test.shape[1], seconds=time.perf_counter() - started
    )
    record.save(out / LINEAR_PROBE)
    return record


def _describe_probe(record: LinearProbeRecord) -> str:
    """Return a line on what fine-tuning has to beat."""
    e = record.evaluation
    return (
        f"linear probe on {record.features:,} features of the pretrained weights: test {e.top1:.1%}, NLL {e.nll:.3f}, "
        f"ECE {e.ece:.3f}, {record.seconds:.0f} s; fine-tuning should beat it"
    )
