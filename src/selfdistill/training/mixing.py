r"""Mixup and CutMix: a batch is blended with itself, one image along.

With :math:`\lambda \sim \mathrm{Beta}(\alpha, \alpha)`, mixup gives :math:`\lambda x_i + (1 - \lambda) x_{i-1}`;
CutMix pastes a rectangle of :math:`x_{i-1}`, of a share :math:`1 - \lambda` of the area. The label is in either case
:math:`\lambda y_i + (1 - \lambda) y_{i-1}`.

Source: Zhang et al. (2018) and Yun et al. (2019), as torchvision's transforms v2 have them.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from selfdistill.config.train_config import ResolvedTrainConfig
from selfdistill.errors import ArgumentError
from selfdistill.methods import parse_method

Mix = Callable[[Any, Tensor], tuple[Any, Tensor]]


def mixing(recipe: ResolvedTrainConfig) -> Mix | None:
    """Return what blends a batch ``(B, 3, S, S)`` and its class indices ``(B,)``: labels are then ``(B, C)``.

    Raises:
        ArgumentError: the method needs the images' own classes or several views, or the images are not read at all.
    """
    alphas = {name: value for name in ("mixup", "cutmix") if (value := getattr(recipe, name)) is not None}
    if not alphas:
        return None
    name = next(iter(alphas))
    needs = parse_method(recipe.method).needs
    if needs.views > 1 or needs.group > 1 or needs.pair or needs.index or needs.previous:
        raise ArgumentError(name, f"would blend images whose own classes or views {recipe.method} needs: leave it out")
    if recipe.freeze == "backbone":
        raise ArgumentError(name, "blends images, and with `freeze=backbone` the head trains on features: leave it out")
    from torchvision.transforms import v2

    of_name = {"mixup": v2.MixUp, "cutmix": v2.CutMix}
    mixes = [of_name[name](alpha=alpha, num_classes=recipe.classes) for name, alpha in alphas.items()]
    chosen: Mix = v2.RandomChoice(mixes) if len(mixes) > 1 else mixes[0]
    return chosen
