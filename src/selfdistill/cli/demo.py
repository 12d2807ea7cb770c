"""``selfdistill demo``."""

from pathlib import Path

from selfdistill.cli.options import File, WholeNumber
from selfdistill.cli.show import METHODS, show_comparison


def demo(*, out: File = Path("runs/demo"), seeds: WholeNumber = 3, jobs: WholeNumber = 2) -> None:
    """Compare methods on handwritten digits: a minute, no download.

    Trains with cross-entropy, label smoothing and SD-Dropout, at the paper's weight 1.0 and at 0.1, on 50 of the 1,797
    digits that ship with scikit-learn, and evaluates on held-out ones: accuracy, calibration, attacks, corruptions,
    and out-of-distribution images, which are pieces of two photographs.

    Args:
        out: folder for the runs and the report
        seeds: number of seeds, from 0 up
        jobs: number of parallel training processes
    """
    from selfdistill.runs.compare import run_comparison
    from selfdistill.runs.demo import EVALUATION, PREFACE, RECIPE

    records = run_comparison(
        RECIPE, METHODS, seeds=seeds, epochs=RECIPE.epochs, jobs=jobs, out=out, evaluation=EVALUATION
    )
    show_comparison(records, out, "Handwritten digits: does it help?", PREFACE)
