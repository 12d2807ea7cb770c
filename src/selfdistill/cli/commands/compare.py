"""``selfdistill compare``."""

from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from selfdistill.cli.options import (
    EVALUATION,
    METHOD,
    OPTIMISATION,
    File,
    OptionalText,
    OptionalWholeNumber,
    Texts,
    WholeNumber,
    takes_recipe,
)
from selfdistill.cli.show import OOD, train_and_show
from selfdistill.config.train_config import COMPARED_METHODS, TrainConfig


@takes_recipe(TrainConfig, without=("method", "seed"))
def compare(
    recipe: TrainConfig,
    *,
    methods: Annotated[Texts, Parameter(group=METHOD)] = list(COMPARED_METHODS),  # noqa: B006 - shown in the help, not changed
    seeds: WholeNumber = 3,
    epochs: Annotated[OptionalWholeNumber, Parameter(group=OPTIMISATION)] = None,
    budget: OptionalText = None,
    jobs: WholeNumber = 1,
    out: File | None = None,
    ood: Annotated[Texts, Parameter(group=EVALUATION)] = list(OOD),  # noqa: B006
    corruptions: Annotated[File | None, Parameter(group=EVALUATION)] = None,
    max_images: Annotated[OptionalWholeNumber, Parameter(group=EVALUATION)] = None,
    quick: Annotated[bool, Parameter(group=EVALUATION)] = False,
    retry_failed: bool = False,
) -> None:
    """Train several methods on your images; report whether any helped.

    --data is a folder (DIR/train/CLASS/* with DIR/test/CLASS/* or DIR/val/CLASS/*; or just DIR/CLASS/*, of which about
    20 % are held out), a named dataset (digits, cifar10, cifar100, svhn, cub200, dogs, dogs_full, imagenet), or arrays
    (FILE.npz; or train.npz and test.npz in DIR) with images, uint8 (N, H, W, C), and labels.

    Each network is then measured as by selfdistill evaluate. To resume an interrupted comparison, run the same command
    again. Where a run fails, the others go on, and the report names it.

    For example:
        selfdistill compare --data photos --weights default
        selfdistill compare --data cifar100 --per-class 100 --budget 30m --jobs 2
        selfdistill compare --data photos --methods "CrossEntropy()" "SDDropout()"

    Args:
        methods: methods to compare; differences are to the first
        seeds: number of seeds, from 0 up
        epochs: passes over the training set (default: as many as fit in --budget)
        budget: time for everything, such as 90s or 1h30m; allows 200 epochs at most (default: 60m)
        jobs: number of parallel training processes
        out: folder for the runs and the report (default: runs/DATA)
        ood: out-of-distribution datasets: photographs, lsun_resize, isun, dtd, svhn, cifar10,
            imagenet_resize, folders, .npy or .npz
        corruptions: folder of the published CIFAR-10-C or CIFAR-100-C arrays (default: synthetic corruptions)
        max_images: maximum test images for PGD and synthetic corruptions (default: what a quarter of --budget allows)
        quick: measure accuracy and calibration only
        retry_failed: try runs again that diverged before
    """
    from selfdistill.runs.compare import run_comparison
    from selfdistill.runs.evaluation import evaluation_config
    from selfdistill.runs.folders import name_of

    name = name_of(recipe.data)
    out = out or Path("runs") / name
    train = partial(
        run_comparison,
        recipe,
        methods,
        seeds=seeds,
        epochs=epochs,
        budget=budget,
        jobs=jobs,
        out=out,
        evaluation=evaluation_config(
            ood, corruptions, max_images, quick, recipe.data_root, recipe.skip_unreadable, recipe.max_pixels
        ),
        fit=max_images is None and epochs is None,
        retry_failed=retry_failed,
    )
    counted = "1 method" if len(methods) == 1 else f"{len(methods)} methods compared"
    train_and_show(train, out, f"{name}: {counted}")
