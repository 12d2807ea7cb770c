r"""Which parameters take which share of the learning rate, and what stays as it was pretrained.

The head and what a method adds are new and take the rate :math:`\eta`; a pretrained layer, counted k from the last,
takes :math:`\eta_b\,\delta^{k}` with the layer decay :math:`\delta`. Without pretrained weights there is one group.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from selfdistill.config.train_config import ResolvedTrainConfig
from selfdistill.errors import ArgumentError
from selfdistill.text import quote, suggest
from selfdistill.training.task import sgd

Group = dict[str, Any]
"""Parameters with ``lr_share``, their factor of the rate, and ``first_epoch``, before which their rate is 0."""


def parameter_groups(recipe: ResolvedTrainConfig, network: nn.Module, model: nn.Module, head: str) -> list[Group]:
    """Return the trained parameters in groups, by their share of the learning rate.

    Args:
        network: everything that is trained: the model and what the method adds.
    """
    if not recipe.fine_tunes:
        return [{"params": _trained(network.parameters()), "lr_share": 1.0, "first_epoch": 0}]
    assert recipe.backbone_lr is not None
    in_backbone = _backbone(model, head)
    new = [parameter for parameter in _trained(network.parameters()) if parameter not in in_backbone]
    groups: list[Group] = [{"params": new, "lr_share": 1.0, "first_epoch": 0}]
    for parameters, scale in _layers(model, recipe.layer_decay):
        own = [parameter for parameter in _trained(parameters) if parameter in in_backbone]
        share = scale * recipe.backbone_lr / recipe.lr
        groups.append({"params": own, "lr_share": share, "first_epoch": recipe.head_epochs})
    if recipe.optimizer != "sgd":  # biases and norms are not decayed, as usual with these
        groups = [
            {**group, "params": [p for p in group["params"] if (p.ndim > 1) == decayed]}
            | ({} if decayed else {"weight_decay": 0.0})
            for group in groups
            for decayed in (True, False)
        ]
    return [group for group in groups if group["params"]]


def make_optimizer(recipe: ResolvedTrainConfig, groups: list[Group]) -> torch.optim.Optimizer:
    """Return the optimiser of a recipe; the rate is set before each step."""
    if recipe.optimizer == "sgd":
        return sgd(recipe, groups)
    from timm.optim import create_optimizer_v2, list_optimizers

    known = [str(name) for name in list_optimizers()]
    if recipe.optimizer not in known:
        remedy = suggest(recipe.optimizer, known, otherwise="see timm.optim.list_optimizers()")
        raise ArgumentError("optimizer", f"{quote(recipe.optimizer)} is unknown; {remedy}")
    return create_optimizer_v2(
        groups, opt=recipe.optimizer, lr=1.0, weight_decay=recipe.weight_decay, momentum=recipe.momentum
    )


def freeze(recipe: ResolvedTrainConfig, model: nn.Module, head: str) -> None:
    """Take the parameters out of training that the recipe freezes."""
    if recipe.freeze == "backbone":
        for parameter in _backbone(model, head):
            parameter.requires_grad_(False)


def set_training_mode(recipe: ResolvedTrainConfig, network: nn.Module, model: nn.Module, head: str) -> None:
    """Put a network into training mode, but for what stays as it was pretrained."""
    network.train()
    if recipe.freeze == "backbone":
        model.eval()
        model.get_submodule(head).train()
    elif recipe.freeze_bn:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _backbone(model: nn.Module, head: str) -> set[nn.Parameter]:
    return set(model.parameters()) - set(model.get_submodule(head).parameters())


def _trained(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.requires_grad]


def _layers(model: nn.Module, decay: float | None) -> Iterator[tuple[list[nn.Parameter], float]]:
    """Yield parameters with their factor of the rate."""
    if decay is None:
        yield list(model.parameters()), 1.0
    elif hasattr(model, "group_matcher"):  # timm's models say what their layers are
        from timm.optim import param_groups_layer_decay

        for group in param_groups_layer_decay(model, layer_decay=decay):
            yield group["params"], group["lr_scale"]
    else:
        blocks: dict[str, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            blocks.setdefault(_block(name), []).append(parameter)
        for depth, parameters in enumerate(reversed(blocks.values())):
            yield parameters, decay**depth


def _block(name: str) -> str:
    """Return the part of a parameter's name that its block has, up to the first number.

    Example:
        >>> _block("layer4.1.conv2.weight"), _block("conv1.weight")
        ('layer4.1', 'conv1')
    """
    parts = name.split(".")
    number = next((at for at, part in enumerate(parts) if part.isdigit()), 0)
    return ".".join(parts[: number + 1])
