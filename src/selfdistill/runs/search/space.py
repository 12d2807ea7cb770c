"""What a search may change: the arguments of a method, and on request the rates."""

import ast
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from selfdistill import methods
from selfdistill.config import TrainConfig
from selfdistill.config.train_config import ResolvedTrainConfig
from selfdistill.method import Method, Range
from selfdistill.methods import parse_method

RATES = ("lr", "weight_decay")
_FACTOR = 10.0  # a rate is searched between a tenth and ten times what the recipe has


def open_arguments(expression: str) -> dict[str, Range]:
    """Return what is searched of a method: the ranges of the arguments that the expression leaves open, by full name.

    Example:
        >>> list(open_arguments("SDDropout(p=0.5, temperature=3) + LabelSmoothing()"))
        ['SDDropout.weight', 'SDDropout.warmup', 'LabelSmoothing.eps']
    """
    parse_method(expression)
    return {
        f"{kind.__name__}.{one.name}": one
        for call, kind in _calls(ast.parse(expression.strip(), mode="eval"))
        for one in kind.searched
        if one.name not in _given(call, kind)
    }


def with_arguments(expression: str, values: Mapping[str, float]) -> str:
    """Return the expression with arguments filled in, as the method's repr.

    Args:
        values: by full name; others are left out.

    Example:
        >>> with_arguments("SDDropout(p=0.3)", {"SDDropout.weight": 0.2, "lr": 0.1})
        'SDDropout(p=0.3, weight=0.2)'
    """
    tree = ast.parse(expression.strip(), mode="eval")
    for call, kind in _calls(tree):
        for name, value in values.items():
            owner, _, argument = name.partition(".")
            if owner == kind.__name__:
                call.keywords.append(ast.keyword(argument, ast.Constant(value)))
    return repr(parse_method(ast.unparse(tree)))


def default_of(expression: str, name: str) -> float:
    """Return the default of an open argument: where the search begins.

    Example:
        >>> default_of("SDDropout()", "SDDropout.weight")
        1.0
    """
    owner, _, argument = name.partition(".")
    return float(inspect.signature(getattr(methods, owner)).parameters[argument].default)


def rates_of(recipe: ResolvedTrainConfig) -> dict[str, Range]:
    """Return where the learning rate and the weight decay are searched: around what the recipe has."""
    return {
        name: Range(name, value / _FACTOR, value * _FACTOR, log=True)
        for name in RATES
        if (value := getattr(recipe, name)) > 0
    }


def with_rates(recipe: TrainConfig, resolved: ResolvedTrainConfig, rates: Mapping[str, float]) -> TrainConfig:
    """Return the recipe with other rates; that of pretrained layers keeps its ratio to the head's."""
    values: dict[str, Any] = dict(rates)
    if resolved.backbone_lr is not None and resolved.lr and "lr" in rates:
        values["backbone_lr"] = float(f"{resolved.backbone_lr * rates['lr'] / resolved.lr:.3g}")
    return replace(recipe, **values)


def _calls(tree: ast.Expression) -> list[tuple[ast.Call, type[Method]]]:
    """The methods of an expression that was parsed already, from left to right."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    calls.sort(key=lambda call: call.col_offset)
    return [(call, getattr(methods, call.func.id)) for call in calls if isinstance(call.func, ast.Name)]


def _given(call: ast.Call, kind: type[Method]) -> set[str | None]:
    names = list(inspect.signature(kind).parameters)
    return {*names[: len(call.args)], *(keyword.arg for keyword in call.keywords)}
