"""What each command does. A function's signature is its options, its docstring its help; no torch until it runs."""

from pathlib import Path
from typing import TYPE_CHECKING

from selfdistill.train.recipe import Recipe

if TYPE_CHECKING:
    from selfdistill.records import RunRecord

DEFAULT_METHODS = ["CrossEntropy()", "LabelSmoothing()", "SDDropout(weight=0.1)", "SDDropout()"]


def demo(out: Path = Path("runs/demo"), seeds: int = 3, jobs: int = 1) -> None:
    """Compare methods on real handwritten digits in about a minute; nothing is downloaded.

    Cross-entropy, label smoothing and SD-Dropout, at the paper's weight 1.0 and at 0.1, learn from 300 of the 1,797
    digits that ship with scikit-learn, and are scored on held-out ones.

    Args:
        out: folder for the runs and the report
        seeds: how many seeds, 0 and up
        jobs: trainings at a time, each in a process of its own; 1 trains one after another in this one
    """
    from selfdistill.experiments.compare import run_comparison
    from selfdistill.experiments.demo import PREFACE, RECIPE

    records = run_comparison(
        RECIPE, DEFAULT_METHODS, seeds=seeds, epochs=RECIPE.epochs, budget="1h", jobs=jobs, out=out
    )
    _show(records, out, "Handwritten digits: does it help?", PREFACE)


def compare(
    recipe: Recipe,
    methods: list[str] = DEFAULT_METHODS,
    seeds: int = 3,
    epochs: int | None = None,
    budget: str = "60m",
    jobs: int = 1,
    out: Path | None = None,
) -> None:
    """Train several methods on your images, several seeds each, and report whether any of them helped.

    The data: a folder (DIR/train/CLASS/*, DIR/val or test/CLASS/*, or just DIR/CLASS/*), a named set, or .npz arrays.
    A comparison that was stopped goes on where it was: give the same command again.

    Args:
        methods: what to compare; differences are to the first
        seeds: how many seeds, 0 and up
        epochs: passes over the training images; as many as the budget allows where not given
        budget: time for the whole comparison, such as 90s, 60m or 2h; sets the epochs (200 at most)
        jobs: trainings at a time, each in a process of its own; 1 trains one after another in this one
        out: folder for the runs and the report; runs/DATA where not given
    """
    from selfdistill.experiments.compare import run_comparison

    name = Path(recipe.data).stem
    out = out or Path("runs") / name
    records = run_comparison(recipe, methods, seeds=seeds, epochs=epochs, budget=budget, jobs=jobs, out=out)
    _show(records, out, f"{name}: {len(methods)} methods compared")


def train(
    recipe: Recipe,
    out: Path | None = None,
    devices: int = 1,
    nodes: int = 1,
    accelerator: str = "auto",
    tensorboard: bool = False,
) -> None:
    """Train one network with one method by a recipe.

    A run that was stopped goes on where it was, to the same weights: give the same command again.

    Args:
        out: the run's folder; runs/DATA-METHOD-seedN where not given
        devices: GPUs (or CPU processes) on each machine
        nodes: machines
        accelerator: cuda, cpu, or auto for a GPU where there is one
        tensorboard: also write OUT/tensorboard
    """
    from selfdistill.experiments.grid import expand
    from selfdistill.train import progress_bar
    from selfdistill.train import train as run

    (cell,) = expand(recipe, [recipe.method], [recipe.seed])
    out = out or Path("runs") / f"{Path(recipe.data).stem}-{cell.name}"
    with progress_bar(cell.name) as progress:
        record = run(
            cell.recipe,
            out,
            devices=devices,
            nodes=nodes,
            accelerator=accelerator,
            tensorboard=tensorboard,
            progress=progress,
        )
    _show([record], out, f"{record.method} on {record.data['name']}")


def evaluate(run: Path, data: str | None = None, data_root: str = "data", json: Path | None = None) -> None:
    """Score a trained network again, on its own test images or on others with the same classes.

    Args:
        run: a run's folder
        data: other images: a folder, a named set or .npz arrays; the run's own where not given
        data_root: folder where named sets are looked for and downloaded to
        json: also write the numbers to this file
    """
    from json import dumps

    from selfdistill.experiments.rescore import rescore
    from selfdistill.records import write_atomically
    from selfdistill.report import terminal
    from selfdistill.report.lists import evaluation_table

    images, evaluation = rescore(run, data=data, data_root=Path(data_root))
    _print(terminal(evaluation_table(evaluation), title=f"{run} on {images.name} ({images.test_is})"))
    if json is not None:
        write_atomically(json, (dumps(evaluation.to_dict(), indent=1) + "\n").encode())


def report(runs: list[Path], out: Path = Path("report"), title: str = "Comparison") -> None:
    """Write the report of finished runs: report.html, report.md and the figures.

    Args:
        runs: folders of runs, or folders that hold such
        out: folder of the report
        title: its heading
    """
    from selfdistill.records import load_all

    records = [record for run in runs for record in load_all(run)]
    _show(records, out, title)


def predict(run: Path, paths: list[Path], csv: Path | None = None, skip_unreadable: bool = False) -> None:
    """Classify image files with a trained network.

    Args:
        run: a run's folder
        paths: image files, and folders that are searched for them
        csv: write a row a file, with every class's probability, to this file instead of a table to the screen
        skip_unreadable: leave out files that cannot be read instead of stopping
    """
    from selfdistill.experiments.predict import predict_files, write_csv
    from selfdistill.report.tables import Table, terminal
    from selfdistill.train import load_run

    loaded = load_run(run)
    predictions, unreadable = predict_files(loaded, paths, skip_unreadable=skip_unreadable)
    if csv is not None:
        write_csv(csv, predictions, loaded.classes)
        print(f"{len(predictions)} images, {csv}")
    else:
        rows = tuple((str(p.path), p.label, f"{p.confidence:.1%}") for p in predictions)
        _print(terminal(Table(("File", "Class", "Probability"), rows)))
    if unreadable:
        print(f"{len(unreadable)} unreadable files left out; the first: {unreadable[0]}")


def methods() -> None:
    """List the methods, their arguments and what they need of a batch."""
    from selfdistill.report.lists import method_lines

    print("\n".join(method_lines()))
    print('\nMethods are added with +, for example "SDDropout(weight=0.1) + LabelSmoothing()".')


def _show(records: "list[RunRecord]", out: Path, title: str, preface: str | None = None) -> None:
    from selfdistill.records import summarise
    from selfdistill.report import metric_table, terminal, verdict, write_report

    page = write_report(records, out, title=title, preface=preface)
    summary = summarise(records)
    _print(terminal(metric_table(summary), title=title))
    print(verdict(summary).headline)
    print(f"Report: {page}")


def _print(table: object) -> None:
    from rich.console import Console

    Console().print(table)
