"""The printed numbers of the paper: they are in ``targets.json`` and nowhere else."""

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

NOT_TABULATED = {
    "logged_final_train_loss_cifar100_resnet18": "from the authors' logs, printed in no table",
    "logged_accuracy_cifar100_resnet18": "from the authors' logs, printed in no table",
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
