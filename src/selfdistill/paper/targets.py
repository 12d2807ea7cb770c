"""The published numbers, printed in the paper or in its runs' logs: they are in ``targets.json`` and nowhere else."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

NOT_TABULATED = {
    "table1_accuracy/epochs": "a setting",
    "table1_accuracy/runs": "a setting",
    "table2_ece_fraction/bins": "a setting",
    "table3_imagenet/epochs": "a setting",
    "table3_imagenet/batch_size": "a setting",
    "table3_imagenet/lambda_sdd": "a setting",
    "table13_two_fc_layers/hidden_units": "a setting",
    "table14_hyperparameters/columns_beta": "the headings of the columns",
}
"""Numbers of ``targets.json`` that stand beside no cell, by the beginning of their path, and why."""


_SDS = 3
_SHARE = 0.15


@dataclass(frozen=True)
class Logged:
    """A number of the published runs' logs, and the band in which ours is expected.

    Attributes:
        target: path of a number or of a pair in ``targets.json``.
        kind: "range", the least and the greatest of several seeds; "sd", mean and sd over seeds; "one", one number.
    """

    target: str
    kind: Literal["range", "sd", "one"]

    @property
    def numbers(self) -> tuple[float, ...]:
        """The number, or the pair."""
        if self.kind == "one":
            return (printed(self.target),)
        return printed(f"{self.target}/0"), printed(f"{self.target}/1")

    def band(self, sd: float | None) -> tuple[float, float]:
        """Return the least and the greatest number that agree with the logs.

        - A range is widened by its own width on either side.
        - Around a mean there are 3 sd: theirs or ours, whichever is larger, for of a few runs that happen to be close
          neither sd says much.
        - A single number has 15 % on either side: a little more than the widest of the bands that are made from ranges.

        Where nothing but the seed differs and all numbers are normal, the mean of three of our runs is outside the band
        of five published runs in 0.3 % (sd) or 0.8 % (range) of the cases, outside that of two in 3 % (sd); one run of
        ours is outside the band of five in 5 % and 3 %.

        Args:
            sd: of our runs over seeds; None for one run.

        Example:
            >>> byot = Logged("logged_accuracy_cifar100_resnet18/byot", "sd")
            >>> byot.numbers, byot.band(None), byot.band(0.5)
            ((77.2, 0.2), (76.6, 77.8), (75.7, 78.7))
        """
        first, *rest = self.numbers
        if self.kind == "one":
            low, high = first * (1 - _SHARE), first * (1 + _SHARE)
        elif self.kind == "range":
            width = rest[0] - first
            low, high = first - width, rest[0] + width
        else:
            margin = _SDS * max(rest[0], sd or 0.0)
            low, high = first - margin, first + margin
        return round(low, 6), round(high, 6)


def printed(path: str) -> float:
    """Return a printed number.

    Args:
        path: of keys and positions, such as ``"table9_directions/cifar100/3"``.

    Raises:
        KeyError: there is no such number.

    Example:
        >>> printed("table1_accuracy/rows/cross_entropy/cifar100/base"), printed("table9_directions/cifar100/3")
        (74.8, 77.0)
    """
    return numbers()[path]


@cache
def numbers() -> dict[str, float]:
    """Return every number of the file by its path; texts are left out."""
    return dict(_leaves("", json.loads(files(__package__).joinpath("targets.json").read_text(encoding="utf-8"))))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(f"{path}/{key}" if path else str(key), inner)
    elif isinstance(value, int | float):
        yield path, float(value)
