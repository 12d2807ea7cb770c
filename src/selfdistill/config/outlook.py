"""What the committed records say of a setting before it is trained."""

from collections.abc import Sequence

from selfdistill.config.train_config import ResolvedTrainConfig
from selfdistill.text import count_of

FITTED_EPOCHS = 60
"""From so many epochs on networks that were trained from scratch fitted most of their training images."""

FEW_CLASSES = 10


def outlook(recipe: ResolvedTrainConfig, methods: Sequence[str], *, searched: bool = False) -> str | None:
    """Say in a line what to expect of SD-Dropout in a setting, and what to do; nothing where the records say nothing.

    1. From scratch in fewer than `FITTED_EPOCHS` epochs the network did not fit its training images, and
       ``SDDropout()`` cost accuracy.
    2. On a frozen backbone no method changed the accuracy by more than a point.
    3. A fixed weight of 1 raised the NLL on all sets of 10 classes and on pretrained weights: the network becomes
       under-confident. With 20 classes or more from scratch it lowered it wherever the images were fitted.

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

    Source: docs/when_it_helps.md; a test compares what is said here with the records of its tables.
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
