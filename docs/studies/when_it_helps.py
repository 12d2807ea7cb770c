"""When does SD-Dropout help? The same comparison in several settings, and where the sign flips.

uv run python docs/studies/when_it_helps.py [SETTING ...]     trains what is missing (CIFAR-100 in data/cifar100)
uv run python docs/make.py                                    writes the pages and figures from the records
"""

import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from selfdistill.experiments.compare import run_comparison
from selfdistill.train import Recipe

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"
JOBS = 2


@dataclass(frozen=True)
class Setting:
    """One comparison.

    Attributes:
        title: what it is called in the table.
        recipe: everything but method and seed.
        methods: cross-entropy first.
        seeds: how many.
        records: folder below docs/results, where it is not ``when_it_helps/<name>``.
    """

    title: str
    recipe: Recipe
    methods: tuple[str, ...] = ("CrossEntropy()", "SDDropout(weight=0.1)", "SDDropout()")
    seeds: int = 3
    records: str | None = None


SMALL = Recipe(
    data="cifar100",
    classes=20,
    per_class=100,
    model="resnet10_cifar",
    width=16,
    batch_size=64,
    epochs=60,
    channels_last=True,
    eval_every=5,
)
DIGITS = replace(SMALL, data="digits", classes=None, per_class=10, batch_size=32, eval_every=20)
FOUR = ("CrossEntropy()", "LabelSmoothing()", "SDDropout(weight=0.1)", "SDDropout()")
WEIGHTS = ("CrossEntropy()", "SDDropout(weight=0.03)", "SDDropout(weight=0.1)", "SDDropout(weight=0.3)", "SDDropout()")

SETTINGS = {
    "cifar_base": Setting(
        "CIFAR-100, 20 classes x 100, 60 epochs, 128 features", SMALL, FOUR, records="cifar100_20x100"
    ),
    "cifar_short": Setting("the same, 20 epochs", replace(SMALL, epochs=20)),
    "cifar_few_images": Setting("the same, 25 images a class", replace(SMALL, per_class=25)),
    "cifar_wide_features": Setting("the same, 512 features", replace(SMALL, features=512)),
    "digits_5": Setting("digits, 5 images a class, 60 epochs", replace(DIGITS, per_class=5), seeds=5),
    "digits_10": Setting("digits, 10 images a class, 60 epochs", DIGITS, WEIGHTS, 5),
    "digits_30": Setting("digits, 30 images a class, 60 epochs", replace(DIGITS, per_class=30), seeds=5),
}


def main(names: list[str]) -> None:
    """Train what is missing of the named settings, all where none is named, and copy the records beside the docs."""
    for name in names or SETTINGS:
        setting = SETTINGS[name]
        out = Path("runs") / "when_it_helps" / name
        run_comparison(
            setting.recipe,
            setting.methods,
            seeds=setting.seeds,
            epochs=setting.recipe.epochs,
            budget="1h",
            jobs=JOBS,
            out=out,
        )
        records = records_folder(name)
        records.mkdir(parents=True, exist_ok=True)
        for result in sorted(out.glob("*/result.json")):
            shutil.copy(result, records / f"{result.parent.name}.json")


def records_folder(name: str) -> Path:
    """Return the folder of a setting's committed records."""
    return RESULTS / (SETTINGS[name].records or f"when_it_helps/{name}")


if __name__ == "__main__":
    main(sys.argv[1:])
