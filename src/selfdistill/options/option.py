"""What a function's signature is on the command line: an option a parameter, with its type and its help."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from selfdistill.train import recipe_file
from selfdistill.train.recipe_file import YamlRecipe

Command = Callable[..., None]

_TOPICS = {  # a recipe's fields are in this order; each topic starts at one
    "data": "the images",
    "method": "the method and the network",
    "model": "the network",
    "epochs": "the training",
    "batch_size": "the training",
    "precision": "the machine, and what is kept",
}


@dataclass(frozen=True)
class Option:
    """One parameter of a command.

    Attributes:
        name: of the parameter or of the recipe's field.
        hint: its type.
        default: its value where it is not given; ``inspect.Parameter.empty`` for a positional argument.
        help: one line.
        topic: of a recipe's field; empty for the command's own parameters.
    """

    name: str
    hint: Any
    default: Any
    help: str
    topic: str = ""

    @property
    def positional(self) -> bool:
        """Whether it has no default, and so no dashes."""
        return self.default is inspect.Parameter.empty

    @property
    def optional(self) -> bool:
        """Whether it may be left out; a positional argument is then None."""
        return not self.positional or NoneType in get_args(self.hint)

    @property
    def several(self) -> bool:
        """Whether it takes one value or more."""
        return get_origin(self.hint) is list

    @property
    def spelled(self) -> str:
        """What a user types or reads: ``--image-size``, ``RUN``."""
        return self.name.upper() if self.positional else recipe_file.option(self.name)

    def value(self, given: Any) -> Any:
        """Return the value of what was typed: a text, several, or a bool."""
        if isinstance(given, bool):
            return given
        if self.several:
            return [value_of(self.spelled, text, get_args(self.hint)[0]) for text in given]
        return value_of(self.spelled, given, self.hint)


def recipe_of(function: Command) -> type[YamlRecipe] | None:
    """Return the class of a command's recipe, or None where it takes none."""
    kinds = [hint for hint in get_type_hints(function).values() if isinstance(hint, type)]
    return next((kind for kind in kinds if issubclass(kind, YamlRecipe)), None)


def options_of(function: Command) -> list[Option]:
    """Return the options of a command, its own before the recipe's.

    A recipe's field is left to the command where that has a parameter of its name or of its plural: ``seeds`` says
    which ``seed`` each run has.
    """
    hints, helps = get_type_hints(function), _argument_helps(function)
    parameters, recipe = inspect.signature(function).parameters.values(), recipe_of(function)
    own = [
        Option(parameter.name, hints[parameter.name], parameter.default, helps.get(parameter.name, ""))
        for parameter in parameters
        if recipe is None or hints[parameter.name] is not recipe
    ]
    if recipe is None:
        return own
    hints, helps, topic = get_type_hints(recipe), _argument_helps(recipe), ""
    taken = {option.name for option in own} | {option.name.removesuffix("s") for option in own}
    for field in fields(recipe):
        if field.name not in taken:
            topic = _TOPICS.get(field.name, topic)
            own.append(Option(field.name, hints[field.name], field.default, helps[field.name], topic))
    return own


def value_of(spelled: str, text: str, hint: Any) -> Any:
    """Return the value that a text on the command line stands for.

    Args:
        spelled: the option, for the message.
        text: what was typed; ``null`` is None where the type allows it, a list is ``0.5,0.75`` or ``[0.5, 0.75]``.
        hint: as for :func:`selfdistill.train.recipe_file.convert`; or a path.

    Raises:
        ValueError: it is of another type.

    Example:
        >>> value_of("--milestones", "0.5,0.75", tuple[float, ...]), value_of("--width", "null", int | None)
        ((0.5, 0.75), None)
    """
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if text == "null" and NoneType in kinds:
        return None
    kind = next(kind for kind in kinds if kind is not NoneType)
    if kind is Path:
        if not text.strip():
            raise ValueError(f"{spelled} must not be empty")
        return Path(text).expanduser()
    name = spelled.removeprefix("--").replace("-", "_")
    if get_origin(kind) is tuple:
        items = [item.strip() for item in text.strip("[]() ").split(",") if item.strip()]
        return recipe_file.convert(name, [_number(item, get_args(kind)[0]) for item in items], kind)
    return recipe_file.convert(name, _number(text, kind), kind)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'NAME'?``, or nothing where no known name is like it."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def summary_of(function: Command) -> str:
    """Return the first line of a command's docstring."""
    return (inspect.getdoc(function) or "").splitlines()[0]


def _number(text: str, kind: type) -> Any:
    """A whole number as such where one is wanted; everything else as it was typed, for ``convert`` to judge."""
    return int(text) if kind is int and re.fullmatch(r"[+-]?[0-9]+", text.strip()) else text


def _argument_helps(of: Any) -> dict[str, str]:
    """Return what stands under ``Args:`` or ``Attributes:`` of a docstring by name, each on one line."""
    section = re.search(r"\n(?:Args|Attributes):\n((?:    .*\n?)+)", inspect.getdoc(of) or "")
    entries = re.findall(r"^    (\w+): (.+(?:\n     +.+)*)", section[1], re.MULTILINE) if section else []
    return {name: " ".join(text.split()) for name, text in entries}
