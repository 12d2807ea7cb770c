"""Find the stages of a convolutional network: the inner modules between which its map shrinks.

x --> [stem] --> [stage 1] --> [stage 2] --> [stage 3] --> [stage 4] --> pool --> head
                     ^ taps for early classifiers ^             ^ the deepest map
"""

from collections.abc import Mapping

from torch import nn

from selfdistill.network import eager

_AT_MOST = 4  # the deepest; timm lists the stem's map too


def find_stages(model: nn.Module) -> tuple[str, ...]:
    """Return the dotted names of a network's stages, shallow to deep; the last one gives the deepest map.

    Known are timm's feature interface (``model.feature_info``), torchvision's ResNets (``layer1`` ... ``layer4``) and
    DenseNets (the transitions and the last norm), our own networks, which bear the same names, and modules called
    ``stages`` (Hugging Face).

    Raises:
        ValueError: none of these; the message asks for ``stages=``.

    Example:
        >>> from selfdistill.models import build
        >>> find_stages(build("resnet10_cifar", 10, width=4))
        ('layer1', 'layer2', 'layer3', 'layer4')
    """
    model = eager(model)
    for names in (_timm(model), _resnet(model), _densenet(model), _called_stages(model)):
        if len(names) > 1:
            return names[-_AT_MOST:]
    raise ValueError(
        f"no stages were found in this {type(model).__name__}; pass stages=, the dotted names of two or more inner "
        "modules that give maps (B, C, H, W), shallow to deep, the last one being the map that is pooled"
    )


def _timm(model: nn.Module) -> tuple[str, ...]:
    """Return timm's own list, of modules of one reduction the deepest alone."""
    info = getattr(model, "feature_info", None) or ()
    deepest = {entry["reduction"]: entry["module"] for entry in info if isinstance(entry, Mapping)}
    known = {name for name, _ in model.named_modules()}
    return tuple(name for name in deepest.values() if name in known)


def _resnet(model: nn.Module) -> tuple[str, ...]:
    names = [f"layer{number}" for number in range(1, _AT_MOST + 1)]
    children = {name for name, _ in model.named_children()}
    return tuple(names) if children.issuperset(names) else ()


def _densenet(model: nn.Module) -> tuple[str, ...]:
    known = [name for name, _ in model.named_modules()]
    transitions = [name for name in known if name.startswith("features.transition") and name.count(".") == 1]
    return (*transitions, "features.norm5") if transitions and "features.norm5" in known else ()


def _called_stages(model: nn.Module) -> tuple[str, ...]:
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "stages":
            return tuple(f"{name}.{child}" for child, _ in module.named_children())
    return ()
