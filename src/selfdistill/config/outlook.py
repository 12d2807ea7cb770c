"""What the committed records say of a setting before it is trained."""

from collections.abc import Sequence

from selfdistill.config.train_config import ResolvedTrainConfig
from selfdistill.text import count_of

FITTED_EPOCHS = 60
"""From so many epochs on networks that were trained from scratch fitted most of their training images."""

FEW_CLASSES = 10


def outlook(recipe: ResolvedTrainConfig, methods: Sequence[str], *, searched: bool = False) -> str | None:
    r"""Say in a line what to expect of SD-Dropout in a setting, and what to do; nothing where the records say nothing.

    1. From scratch in fewer than `FITTED_EPOCHS` epochs the network does not fit its training images. Training accuracy
       of cross-entropy, and the difference of ``SDDropout()`` to it in top-1 points (95 % interval, 3 seeds):

       =========  ===========================================  ============  ==================
       Epochs     Images                                       Training (%)  Difference
       =========  ===========================================  ============  ==================
       10         CIFAR-100, 20 x 50 (160 steps)               40            -4.3 (-5.6, -3.1)
       20         CIFAR-100, 20 x 100 (640 steps)              51            -6.4 (-9.0, -3.8)
       60         CIFAR-100, 20 x 100 (1,920 steps)            88            -4.3 (-8.5, -0.1)
       60         CIFAR-100, 20 x 25 (480 steps)               96            -0.9 (-3.8, +1.9)
       60         digits, 10 x 5 to 10 x 30 (120 to 600 steps) 100           not decided
       80         CIFAR-100, 20 x 250 (6,320 steps)            95            +0.5 (-2.5, +3.4)
       200        CIFAR-100 at 16 px, 100 x 15 (9,400 steps)   100           +1.0 (+0.4, +1.5)
       200        CIFAR-100, 100 x 500 (78,200 steps)          100           +2.3 (+1.7, +2.8)
       =========  ===========================================  ============  ==================

       With weight 0.1 the differences after 20, 60 and 80 epochs were -1.5, 0.0 and +3.7 (the last one decided).
    2. On a frozen backbone no method changed the accuracy by more than a point (Caltech-101, 101 x 5 and 101 x 10).
    3. A fixed weight of 1 raised the NLL on all sets of 10 classes (digits from scratch, 4 of 4 settings) and on
       pretrained weights (Caltech-101, 4 of 4): the network becomes under-confident. With 20 classes or more from
       scratch its mean NLL was lower wherever the images were fitted.

    Args:
        recipe: of the runs.
        methods: that are trained, as text.
        searched: whether the weight is searched.

    Example:
        >>> from dataclasses import replace
        >>> from selfdistill.config import TrainConfig
        >>> from selfdistill.data import load_data
        >>> recipe = TrainConfig(data="digits", epochs=20).resolve(load_data("digits", per_class=5))
        >>> outlook(recipe, ["CrossEntropy()", "SDDropout(weight=0.1)"]).partition(":")[0]
        'a schedule of 20 epochs from scratch is short'
        >>> outlook(replace(recipe, epochs=200), ["CrossEntropy()", "SDDropout(weight=0.1)"]) is None
        True

    Source: docs/when_it_helps.md, and the records of its tables.
    """
    from selfdistill.methods import SDDropout, parse_method

    parts = [part for method in methods for part in parse_method(method).parts]
    weights = [part.weight for part in parts if isinstance(part, SDDropout)]
    if not weights:
        return None
    if recipe.freeze == "backbone":
        return (
            "a frozen backbone leaves little to gain: no method changed the accuracy by more than a point where it was "
            "measured; for more, train the whole network"
        )
    if not recipe.fine_tunes and recipe.epochs < FITTED_EPOCHS:
        return (
            f"a schedule of {count_of(recipe.epochs, 'epoch')} from scratch is short: after 10 and 20 cross-entropy "
            "had fitted half of its training images, and SDDropout() lost 4 to 6 points; give it "
            f"{FITTED_EPOCHS} epochs or more (a longer budget, fewer images), or pretrained weights"
        )
    too_strong = not searched and all(weight != "auto" and weight >= 1 for weight in weights)
    if too_strong and (recipe.fine_tunes or recipe.classes <= FEW_CLASSES):
        where = "on pretrained weights" if recipe.fine_tunes else f"with {FEW_CLASSES} classes"
        return (
            f"SDDropout() at weight 1 raised the NLL {where} wherever it was measured: compare "
            'SDDropout(weight=0.1) or SDDropout(weight="auto") too'
        )
    return None
