"""Out-of-distribution scores of features before a linear head z = W f + b: ReAct, DICE, ASH and ViM, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfdistill.evaluation.arrays import Floats, as_floats
from selfdistill.evaluation.ood.mahalanobis import checked_features
from selfdistill.evaluation.ood.scores import energy

if TYPE_CHECKING:
    from torch import Tensor

    from selfdistill.tap import Head

_REACT, _DICE, _ASH = 0.9, 0.9, 0.65  # shares that are cut off: the papers' for CIFAR; ASH's as OpenOOD takes it


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A head and what its scores are fitted to; E(z) = log sum_c exp(z_c) is `energy`, higher for known images.

    Attributes:
        weight: W, (C, D).
        bias: b, (C,).
        ceiling: of ReAct, c.
        kept: of DICE, whether a weight is kept, (C, D).
        origin: of ViM, o = -W^+ b, the features at which all logits are 0, (D,).
        residual: of ViM, R: the directions in which the training features are the least far from o, (D, D - d).
        alpha: of ViM.
    """

    weight: Floats
    bias: Floats
    ceiling: float
    kept: npt.NDArray[np.bool_]
    origin: Floats
    residual: Floats
    alpha: float

    def react(self, features: Tensor | npt.ArrayLike) -> Floats:
        """E(W min(f, c) + b), c the 90 % quantile of all training activations. (N, D) -> (N,).

        Source: Sun et al., ReAct: Out-of-distribution Detection with Rectified Activations, 2021.
        """
        return energy(np.minimum(self._checked(features), self.ceiling) @ self.weight.T + self.bias)

    def dice(self, features: Tensor | npt.ArrayLike) -> Floats:
        """E((M * W) f + b), M_cd = 1 for the tenth of the weights with the largest W_cd mean f_d. (N, D) -> (N,).

        Source: Sun and Li, DICE: Leveraging Sparsification for Out-of-Distribution Detection, 2022.
        """
        return energy(self._checked(features) @ (self.kept * self.weight).T + self.bias)

    def ash(self, features: Tensor | npt.ArrayLike) -> Floats:
        """E(W (exp(S / S') s) + b): s keeps an image's largest 35 % of f, S' sums it, S all of f. (N, D) -> (N,).

        Features below 0 count as 0, which those behind a ReLU are not. This is ASH-S, of the pooled features.

        Source: Djurisic et al., Extremely Simple Activation Shaping for Out-of-Distribution Detection, 2023.
        """
        f = np.maximum(self._checked(features), 0)
        cut = min(round(_ASH * f.shape[1]), f.shape[1] - 1)
        shaped = f.copy()
        np.put_along_axis(shaped, np.argsort(f, axis=1, kind="stable")[:, :cut], 0, axis=1)
        left = shaped.sum(axis=1)
        ratio = f.sum(axis=1) / np.where(left > 0, left, 1)
        return energy(shaped * np.exp(ratio)[:, None] @ self.weight.T + self.bias)

    def vim(self, features: Tensor | npt.ArrayLike) -> Floats:
        """E(W f + b) - alpha |R^T (f - o)|. (N, D) -> (N,).

        Source: Wang et al., ViM: Out-of-Distribution with Virtual-logit Matching, 2022, whose score is the posterior of
        a further class with the logit alpha |R^T (f - o)|: the same order.
        """
        f = self._checked(features)
        residual = np.linalg.norm((f - self.origin) @ self.residual, axis=1)
        return np.asarray(energy(f @ self.weight.T + self.bias) - self.alpha * residual)

    def _checked(self, features: Tensor | npt.ArrayLike) -> Floats:
        f = checked_features(features)
        if f.shape[1] != self.weight.shape[1]:
            raise ValueError(f"features: {f.shape[1]} numbers per image, but the head takes {self.weight.shape[1]}")
        return f


def fit_linear_head(
    features: Tensor | npt.ArrayLike, weight: Tensor | npt.ArrayLike, bias: Tensor | npt.ArrayLike
) -> LinearHead:
    """Fit the scores of a head to the features of training images.

    ViM's R leaves out the d directions of the largest (f - o)^T (f - o): d = 1000 of 2048 features or more, 512 of 768
    or more, else half of them; alpha = mean max_c z_c / mean |R^T (f - o)|.

    Args:
        features: f(x) of training images, in evaluation mode, (N, D).
        weight: W, (C, D).
        bias: b, (C,).

    Raises:
        ValueError: a shape does not fit, a feature is not finite, or the features fill d directions alone.

    Example:
        >>> fitted = fit_linear_head([[3.0, 1.0], [3.0, -1.0]], [[1.0, 0.0], [-1.0, 0.0]], [0.0, 0.0])
        >>> fitted.vim([[3.0, 0.0], [3.0, 4.0]]).round(2)
        array([ 3., -9.])
    """
    f, w, b = checked_features(features), as_floats(weight), as_floats(bias)
    if w.shape != (len(b), f.shape[1]):
        raise ValueError(f"weight: shape {w.shape}, expected {(len(b), f.shape[1])}, (C, D)")
    share, origin = w * f.mean(axis=0), -np.linalg.pinv(w) @ b
    dimensions = f.shape[1]
    d = 1000 if dimensions >= 2048 else 512 if dimensions >= 768 else dimensions // 2
    centred = f - origin
    values, vectors = np.linalg.eigh(centred.T @ centred / len(f))  # rising
    residual = vectors[:, : dimensions - d]
    if values[: dimensions - d].max() <= dimensions * np.finfo(np.float64).eps * values[-1]:
        raise ValueError(f"features: {len(f)} vary in {d} directions alone; fit on more images")
    return LinearHead(
        weight=w,
        bias=b,
        ceiling=float(np.quantile(f, _REACT)),
        kept=share > np.quantile(share, _DICE),
        origin=origin,
        residual=residual,
        alpha=float((f @ w.T + b).max(axis=1).mean() / np.linalg.norm(centred @ residual, axis=1).mean()),
    )


def read_linear_head(head: Head, features: Tensor) -> tuple[Floats, Floats] | None:
    """W and b of a head, found by what it makes of 0 and of the unit vectors; None where h(f) is not W f + b.

    Args:
        head: h, as `read_features` found it.
        features: some that it reads, (N, D) or maps (N, D, 1, 1), to compare.

    Example:
        >>> import torch
        >>> from selfdistill.tap import Head
        >>> weight, bias = read_linear_head(Head(torch.nn.Linear(3, 2)), torch.randn(4, 3))
        >>> weight.shape, bias.shape
        ((2, 3), (2,))
    """
    import torch

    from selfdistill.network import evaluation_mode

    some, dimensions = features[:64], features[0].numel()
    units = torch.cat([torch.zeros(1, dimensions), torch.eye(dimensions), some.flatten(1)])
    device = next(head.module.parameters(), features).device
    with evaluation_mode(head.module), torch.no_grad(), torch.autocast(device.type, enabled=False):
        rows = head(units.to(device).reshape(-1, *features.shape[1:])).double().cpu()
    bias, weight, found = rows[0], (rows[1 : dimensions + 1] - rows[0]).T, rows[dimensions + 1 :]
    expected = some.flatten(1).double() @ weight.T + bias
    return (weight.numpy(), bias.numpy()) if torch.allclose(found, expected, rtol=1e-3, atol=1e-3) else None
