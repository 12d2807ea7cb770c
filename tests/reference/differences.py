"""Gradients from values alone."""

from collections.abc import Callable

import torch
from torch import Tensor


def gradient(function: Callable[[list[list[float]]], float], at: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences of ``function`` at a matrix in float64, one entry at a time."""
    result = torch.empty_like(at)
    for row in range(at.shape[0]):
        for column in range(at.shape[1]):
            above, below = at.tolist(), at.tolist()
            above[row][column] += step
            below[row][column] -= step
            result[row, column] = (function(above) - function(below)) / (2 * step)
    return result
