"""Build a classifier by its name: the paper's networks, any of torchvision's or timm's, or a function of one's own."""

from pathlib import Path

from torch import nn

from selfdistill.errors import ArgumentError, check_range
from selfdistill.models.densenet import CifarDenseNet
from selfdistill.models.external import from_timm, from_torchvision, unknown_model
from selfdistill.models.function import PACKAGES, build_from_function, is_function
from selfdistill.models.parts import check_classes
from selfdistill.models.pretrained import SOURCES, pretrained
from selfdistill.models.resnet import CifarResNet
from selfdistill.models.weights import load_weights, weights_file
from selfdistill.text import quote

_RESNETS = {
    "resnet10_cifar": (1, 1, 1, 1),
    "resnet18_cifar": (2, 2, 2, 2),
    "resnet34_cifar": (3, 4, 6, 3),
    "resnet18_byot224": (2, 2, 2, 2),
}
_POOLED = "resnet18_byot224"
_DENSENET = "densenet121_cifar"


def build(
    name: str,
    classes: int,
    *,
    width: int | None = None,
    features: int | None = None,
    head_layers: int = 1,
    weights: str | Path = "none",
) -> nn.Module:
    """Build the classifier ``name`` for ``classes`` classes.

    ``"resnet18_byot224"`` is for the paper's rows of BYOT on CUB-200-2011 and Stanford Dogs alone. As run, BYOT had a
    ResNet-18 whose stem is 3x3 with stride 1 where that of the other rows, ``"torchvision:resnet18"``, is 7x7 with
    stride 2: the max-pooling is the same, every stage sees maps of twice the sides, at about four times the cost. What
    the two score is therefore not to be compared like for like.

    Args:
        name: one of ``available()``, or ``"torchvision:NAME"`` or ``"timm:NAME"`` with a name of those
            packages, such as ``"torchvision:resnet18"`` or ``"timm:resnet18.a1_in1k"``; or
            ``"package.module:function"``, a function without arguments that returns the model.
        classes: C, at least 2.
        width: for our networks: channels of the first stage (ResNet, default 64) or the growth rate
            (DenseNet, default 32), at least 1.
        features: for our networks: D, the pooled features before the head; by default the last stage's.
        head_layers: for our networks: fully connected layers of the head, 1 or 2 (Table 13).
        weights: ``"none"`` starts at random; ``"default"`` downloads the package's own pretrained weights
            and replaces the head for another class count, and of a function says that its model is pretrained;
            ``"hf-hub:NAME"`` or ``"local-dir:DIR"`` is a repository of the Hugging Face hub or a folder of timm's
            form; otherwise a file or the folder of a run (see ``load_weights``).

    Returns:
        The model; it maps images ``(B, 3, H, W)`` to logits ``(B, C)``. Of GoogLeNet and Inception the
        auxiliary classifiers are left out: they would train on a label loss that no method sees. Its attribute
        ``build_arguments`` holds the arguments but ``weights``: DML builds its peer by them;
        ``has_new_head`` says whether the head is new.

    Raises:
        ValueError: if the name is unknown, an argument is out of range or belongs to our networks alone, or
            the weights do not fit.
        RuntimeError: if the package is not installed or has no pretrained weights of that name.
        OSError: if the weights cannot be downloaded or read.

    Example:
        >>> net = build("resnet10_cifar", 10, width=8, features=64)
        >>> net.fc
        Linear(in_features=64, out_features=10, bias=True)
    """
    check_classes(classes)
    check_range("width", width, 1, 1024)
    check_range("features", features, 1, 10**5)
    source = weights if isinstance(weights, str) and weights.startswith(SOURCES) else None
    given = weights not in ("none", "default") and source is None
    if given and not weights_file(weights).is_file():
        raise ArgumentError("weights", f"{str(weights)!r} are neither 'none' nor 'default' nor a file that exists")
    package, _, inner = name.partition(":")
    if (package in PACKAGES or is_function(name)) and inner:
        ours = {"width": width is not None, "features": features is not None, "head_layers": head_layers != 1}
        if own := next((argument for argument in ours if ours[argument]), None):
            networks = ", ".join(available())
            raise ArgumentError(own, f"applies only to {networks}, not to {quote(name)}: leave it out")
        if is_function(name) and source is None:
            model = build_from_function(name)
        elif package == "timm":
            model = from_timm(inner, classes, str(weights))
        elif source is None:
            model = from_torchvision(inner, classes, weights == "default")
        else:
            raise ArgumentError("weights", f"{source!r} are for a model of timm, not for {quote(name)}")
        known = None if given or weights == "none" else pretrained(name, str(weights))
        new_head = known is None or known.classes != classes
    else:
        model, new_head = _own(name, classes, width, features, head_layers), True
        if weights == "default" or source:
            raise ArgumentError(
                "weights",
                f"{weights!r} do not exist for {quote(name)}: give 'none' or a file, or take a "
                '"torchvision:NAME" or "timm:NAME" model',
            )
    if given:
        new_head = load_weights(model, Path(weights), classes)
    # Plain values, which copies and pickles of the model keep.
    arguments = {"name": name, "classes": classes, "width": width, "features": features, "head_layers": head_layers}
    model.build_arguments = arguments  # type: ignore[assignment]
    model.has_new_head = new_head  # type: ignore[assignment]
    return model


def available() -> list[str]:
    """Return the names of our own networks, sorted.

    Example:
        >>> available()
        ['densenet121_cifar', 'resnet10_cifar', 'resnet18_byot224', 'resnet18_cifar', 'resnet34_cifar']
    """
    return sorted([_DENSENET, *_RESNETS])


def made_for(name: str) -> int:
    """Return the side of the images, in pixels, that the network ``name`` is made for: 32 or 224.

    Example:
        >>> made_for("resnet18_cifar"), made_for("resnet18_byot224"), made_for("timm:resnet18")
        (32, 224, 224)
    """
    return 32 if name in available() and name != _POOLED else 224


def _own(
    name: str, classes: int, width: int | None, features: int | None, head_layers: int
) -> CifarResNet | CifarDenseNet:
    if name == _DENSENET:
        growth = 32 if width is None else width
        return CifarDenseNet(classes, width=growth, features=features, head_layers=head_layers)
    if name in _RESNETS:
        channels, pool = 64 if width is None else width, name == _POOLED
        return CifarResNet(
            _RESNETS[name], classes, width=channels, features=features, head_layers=head_layers, pool=pool
        )
    listing = "selfdistill.models.available()"
    others = 'other models are "torchvision:NAME", "timm:NAME" or "package.module:function"'
    raise unknown_model(name, available(), f"{listing}; {others}")
