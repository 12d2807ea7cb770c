r"""A linear probe: logistic regression on the features of a network that is not trained.

:math:`\min_{W,b} \sum_i \mathrm{CE}(W f_i / s + b, y_i) + \tfrac{1}{2}\lVert W \rVert^2` with the features' root mean
square s, so that the penalty means the same for every network. With few images it is what fine-tuning has to beat; a
head that starts from it does not spoil pretrained features in the first steps.

Source: Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution" (2022).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from selfdistill.files import read_cache, write_cache
from selfdistill.models.sealed import seal_weights

MAX_IMAGES = 20_000
"""Images that a probe is fitted on, at most: solving for it takes minutes beyond."""


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of features, ``z = f W^T + b``.

    Attributes:
        weight: W, float32 ``(C, D)``.
        bias: b, float32 ``(C,)``.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Return the logits ``(N, C)`` of features ``(N, D)``."""
        return nn.functional.linear(features, self.weight, self.bias)

    def copy_to(self, layer: nn.Linear) -> None:
        """Give a layer ``(D, C)`` this probe's weights."""
        with torch.no_grad():
            layer.weight.copy_(self.weight)
            if layer.bias is not None:
                layer.bias.copy_(self.bias)

    def keep(self, file: Path) -> None:
        """Write it for other runs on the same images."""
        write_cache(file, seal_weights(vars(self)))

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """Return what `keep` wrote; None if it is not there or damaged."""
        from safetensors.torch import load

        content = read_cache(file)
        return None if content is None else cls(**load(content))


def fit_linear_probe(features: Tensor, labels: Tensor, classes: int, *, balanced: bool = False) -> LinearProbe:
    """Return the multinomial logistic regression of labels on features, with an L2 penalty of weight 1.

    Args:
        features: f, ``(N, D)``.
        labels: class indices ``(N,)``, of at least two classes.
        classes: C; a class of which there is no image has zero weights.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.8]])
        >>> probe = fit_linear_probe(features, torch.tensor([0, 0, 1, 1]), classes=2)
        >>> probe(features).argmax(dim=1).tolist()
        [0, 0, 1, 1]
    """
    from sklearn.linear_model import LogisticRegression

    scale = float(features.double().square().mean().sqrt().clamp(min=1e-12))
    solver = LogisticRegression(C=1.0, max_iter=1000, class_weight="balanced" if balanced else None)
    fitted = solver.fit((features / scale).double().numpy(), labels.numpy())
    coefficients, intercepts = torch.from_numpy(fitted.coef_ / scale), torch.from_numpy(fitted.intercept_)
    if len(intercepts) == 1:  # two classes: one logit, the difference of ours
        coefficients = torch.cat((-coefficients, coefficients)) / 2
        intercepts = torch.cat((-intercepts, intercepts)) / 2
    weight, bias = torch.zeros(classes, features.shape[1]), torch.zeros(classes)
    weight[fitted.classes_], bias[fitted.classes_] = coefficients.float(), intercepts.float()
    return LinearProbe(weight, bias)
