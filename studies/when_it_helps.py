"""When does SD-Dropout help? The same comparison in several settings, and where the sign flips.

uv run python studies/when_it_helps.py [SETTING ...]     trains what is missing (CIFAR-100 in data/cifar100)
uv run python docs/make.py                                    writes the pages and figures from the records
"""

import sys
from dataclasses import replace

import trust
from setting import Setting

from selfdistill.cli.commands.demo import FROM_SCRATCH
from selfdistill.config import TrainConfig

AUTO = "SDDropout(weight='auto')"
SMALL = TrainConfig(
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
THREE = ("CrossEntropy()", "SDDropout(weight=0.1)", "SDDropout()")
FOUR = ("CrossEntropy()", "LabelSmoothing()", "SDDropout(weight=0.1)", "SDDropout()")
ALL = ("CrossEntropy()", "LabelSmoothing()", "Dropout()", "SDDropout(weight=0.1)", "SDDropout()", AUTO)
LONG = 240


def _setting(name: str, title: str, recipe: TrainConfig, methods: tuple[str, ...] = THREE, seeds: int = 3) -> Setting:
    return Setting(title, f"when_it_helps/{name}", recipe, methods, seeds)


SETTINGS = {
    "cifar_base": Setting("CIFAR-100, 20 x 100, 60 epochs, 128 features", "cifar100_20x100", SMALL, FOUR),
    "cifar_more_images": trust.SETTING,
    "cifar_short": _setting("cifar_short", "CIFAR-100, 20 x 100, 20 epochs", replace(SMALL, epochs=20)),
    "cifar_few_images": _setting("cifar_few_images", "CIFAR-100, 20 x 25, 60 epochs", replace(SMALL, per_class=25)),
    "cifar_wide_features": _setting(
        "cifar_wide_features", "CIFAR-100, 20 x 100, 60 epochs, 512 features", replace(SMALL, features=512)
    ),
    "digits_5": _setting("digits_5", "digits, 5 per class, 60 epochs", replace(DIGITS, per_class=5), ALL, 5),
    "digits_10": _setting("digits_10", "digits, 10 per class, 60 epochs", DIGITS, ALL, 5),
    "digits_30": _setting("digits_30", "digits, 30 per class, 60 epochs", replace(DIGITS, per_class=30), ALL, 5),
    "digits_10_long": _setting(
        "digits_10_long", "digits, 10 per class, 240 epochs", replace(DIGITS, epochs=LONG), ALL, 5
    ),
    "digits_demo": _setting(
        "digits_demo",
        "digits at 16 px, not augmented, 10 per class, 60 epochs (`selfdistill demo`)",
        FROM_SCRATCH.recipe,
        FROM_SCRATCH.methods,
        FROM_SCRATCH.seeds,
    ),
}

if __name__ == "__main__":
    for name in sys.argv[1:] or SETTINGS:
        SETTINGS[name].train()
