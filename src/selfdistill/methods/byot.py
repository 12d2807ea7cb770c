"""BYOT (Zhang et al., 2019): early classifiers on the inner stages, taught by the last one."""

from functools import reduce
from operator import add

import torch.nn.functional as F
from torch import Tensor, nn

from selfdistill.losses import at_least_float32, kl
from selfdistill.method import Method, Needs, Outputs, Range, Step, Term
from selfdistill.methods.ranges import check_temperature, check_weight
from selfdistill.models.parts import initialise_convolutions


class BYOT(Method):
    r"""Be your own teacher.

    .. math::
        L = CE(z, y) + \lambda \sum_{i} \left[ (1 - \alpha) \, CE(z_i, y)
            + \alpha \, T^2 \, D_{KL}(\mathrm{sg}\, p \| p_i) + \beta \, \mathrm{MSE}(F_i, \mathrm{sg}\, f) \right]

    where :math:`z_i = W_i F_i` is an early classifier on stage i (three in a ResNet), :math:`F_i` its pooled features
    and sg stops the gradient. A branch is 1x1 convolution, k x k convolution of stride k down to the size of the
    deepest map, 1x1 convolution, each with BatchNorm and ReLU, average pooling and one linear layer. Its convolutions
    start as a ResNet's (Kaiming normal by the fan out), BatchNorm and the linear layer as PyTorch starts them, as run.
    The deepest classifier is the model; the branches train with it and are left behind.

    The terms are ``"branch_ce"``, ``"byot"`` (the divergences, without :math:`T^2`) and ``"hint"``: sums over the
    branches, unweighted. The mean of MSE is over all elements, so the hint is numerically next to nothing (as run).

    Args:
        weight: :math:`\lambda \geq 0`; 0.1 in the paper's tables.
        alpha: share in [0, 1] of the divergence beside the branches' cross-entropy; 0.1 as run.
        temperature: :math:`T > 0`; 3 as run.
        hint: :math:`\beta \geq 0`; 1e-6 as run.

    Raises:
        ValueError: an argument outside its range; a model without stages, or whose stages are not maps.

    Example:
        >>> import torch
        >>> from selfdistill import BYOT, SelfDistiller
        >>> from selfdistill.models import build
        >>> x, y = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
        >>> distiller = SelfDistiller(build("resnet10_cifar", 3, width=4), BYOT(), example_input=x)
        >>> distiller.stages
        ('layer1', 'layer2', 'layer3', 'layer4')
        >>> list(distiller(x, y).terms)
        ['ce', 'branch_ce', 'byot', 'hint']

    Source: Be Your Own Teacher: Improve the Performance of Convolutional Neural Networks via Self Distillation;
    coefficients and branches as run for Table 1's row "BYOT". Branches of DenseNets and others follow the same plan,
    which is ours: the paper has ResNets only.
    """

    searched = (
        Range("weight", 0.01, 1, log=True),
        Range("alpha", 0.05, 0.9),
    )
    needs = Needs(stages=True)

    def __init__(self, weight: float = 0.1, alpha: float = 0.1, temperature: float = 3.0, hint: float = 1e-6):
        super().__init__()
        check_weight("BYOT", weight=weight, hint=hint)
        check_temperature("BYOT", temperature)
        if not 0 <= alpha <= 1:
            raise ValueError(f"BYOT: alpha is a share, in [0, 1], not {alpha}")
        self.weight, self.alpha, self.temperature, self.hint = weight, alpha, temperature, hint
        self.branches = nn.ModuleList()

    def build(self, probe: Outputs, model: nn.Module) -> None:
        """Grow a branch on every stage but the deepest."""
        shapes = [tuple(stage.shape) for stage in probe.stages]
        if len(shapes) < 2 or any(len(shape) != 4 for shape in shapes):
            raise ValueError(
                f"BYOT branches off maps (B, C, H, W), but the stages give {', '.join(map(str, shapes))}; pass stages= "
                "with two or more modules that give maps, the pooled one last"
            )
        if probe.features.dim() != 2:
            raise ValueError(f"BYOT: the head reads {tuple(probe.features.shape)}, no pooled features (B, D)")
        deepest = shapes[-1][-1]
        features, classes = probe.features.shape[1], probe.logits.shape[1]
        self.branches = nn.ModuleList(
            Branch(channels, stride=max(1, round(side / deepest)), features=features, classes=classes)
            for _, channels, _, side in shapes[:-1]
        ).to(probe.features)

    def terms(self, step: Step) -> dict[str, Term]:
        """Return the sums over the branches, with the weights lambda (1 - alpha), lambda alpha T**2, lambda beta."""
        clean = step.outputs[0]
        early = [branch(stage) for branch, stage in zip(self.branches, clean.stages, strict=False)]
        label_loss = reduce(add, [step.criterion(logits, step.labels) for logits, _ in early])
        divergence = reduce(add, [kl(clean.logits.detach(), logits, self.temperature) for logits, _ in early])
        hint = reduce(add, [_mse(features, clean.features.detach()) for _, features in early])
        return {
            "branch_ce": Term(label_loss, self.weight * (1 - self.alpha)),
            "byot": Term(divergence, self.weight * self.alpha * self.temperature**2),
            "hint": Term(hint, self.weight * self.hint),
        }


class Branch(nn.Module):
    """An early classifier: from a stage's map to logits and pooled features.

    Args:
        channels: of the stage's map.
        stride: k, by which the map is larger than the deepest one.
        features: D, of the model; a quarter of it between the convolutions.
        classes: C.

    Shapes:
        ``(B, channels, H, W) -> (B, C), (B, D)`` with H and W of at least k.

    Example:
        >>> import torch
        >>> logits, features = Branch(8, stride=4, features=32, classes=5)(torch.zeros(2, 8, 16, 16))
        >>> tuple(logits.shape), tuple(features.shape)
        ((2, 5), (2, 32))
    """

    def __init__(self, channels: int, *, stride: int, features: int, classes: int) -> None:
        super().__init__()
        inner = max(1, features // 4)
        self.maps = nn.Sequential(
            *_convolution(channels, inner, 1), *_convolution(inner, inner, stride), *_convolution(inner, features, 1)
        )
        initialise_convolutions(self.maps)
        self.head = nn.Linear(features, classes)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(B, C)`` and features ``(B, D)``."""
        features = F.adaptive_avg_pool2d(self.maps(maps), 1).flatten(1)
        return self.head(features), features


def _convolution(channels: int, out: int, kernel: int) -> tuple[nn.Module, ...]:
    """A kernel x kernel convolution of stride kernel, with BatchNorm and ReLU."""
    # No bias: the BatchNorm after it would cancel it (the authors' code has one all the same).
    return nn.Conv2d(channels, out, kernel, stride=kernel, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)


def _mse(features: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(at_least_float32(features), at_least_float32(target))
