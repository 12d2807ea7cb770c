"""``selfdistill demo``."""

from functools import partial
from pathlib import Path

from selfdistill.cli.options import File, WholeNumber
from selfdistill.cli.show import train_and_show
from selfdistill.config.train_config import COMPARED_METHODS, TrainConfig

PREFACE = (
    "The 1,797 handwritten digits that ship with scikit-learn, shown as 32 x 32 pictures. Each network sees 50 of "
    "them, 5 of each digit, and is scored on 200 that it has not seen, under attacks and corruptions on 20 of these. "
    "The setting was chosen so that it takes a minute on a laptop and cross-entropy fits its training images "
    "completely, not by which method wins."
)

RECIPE = TrainConfig(
    data="digits",
    per_class=5,
    test_per_class=20,
    model="resnet10_cifar",
    width=16,
    epochs=60,
    batch_size=32,
    lr=0.1,
    weight_decay=1e-4,
    channels_last=True,
    eval_every=20,
)


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
    from selfdistill.runs.evaluation import EvaluationConfig

    evaluation = EvaluationConfig(max_images=20, max_ood_images=60)  # everything, on as few images as the minute allows
    train = partial(
        run_comparison,
        RECIPE,
        COMPARED_METHODS,
        seeds=seeds,
        epochs=RECIPE.epochs,
        jobs=jobs,
        out=out,
        evaluation=evaluation,
    )
    train_and_show(train, out, "Handwritten digits: does it help?", PREFACE)
