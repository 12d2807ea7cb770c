"""A function's signature as command-line options: its types say what fits, its docstring explains. No torch here.

argparse cuts the words apart; what they mean, and what is said about a wrong one, is decided here.
"""

import argparse
import difflib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from selfdistill.train import recipe_file
from selfdistill.train.recipe import Recipe

Command = Callable[..., None]

_WIDTH = 80
_TOPICS = {  # the recipe's fields are in this order; each topic starts at one
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


def parse(name: str, function: Command, words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of a command from what was typed after its name.

    A parameter ``recipe: Recipe`` stands for an option of each of the recipe's fields that is no parameter itself, and
    for ``--recipe FILE``, whose values hold where nothing was typed.

    Raises:
        ValueError: an unknown option, a missing or a wrong value; one line.
        OSError: the recipe cannot be read.

    Example:
        >>> def shrink(image: Path, size: int = 32): "Shrink an image."
        >>> parse("shrink", shrink, ["--size", "16", "cat.png"])
        {'image': PosixPath('cat.png'), 'size': 16}
    """
    options = options_of(function)
    takes_recipe = Recipe in get_type_hints(function).values()
    parser = _parser(name, function, options)
    _check_names(words, options)
    try:
        typed = vars(parser.parse_intermixed_args(words))
    except argparse.ArgumentError as error:
        raise ValueError(_explained(error)) from None
    file = typed.pop("recipe", None)
    values = {option.name: option.value(typed[option.name]) for option in options if option.name in typed}
    missing = [option.spelled for option in options if option.positional and option.name not in values]
    if missing:
        raise ValueError(f"{' and '.join(missing)} must be given: {_usage(name, options)}")
    if file is not None:
        path = value_of("--recipe", file, Path)
        whole = Recipe.from_yaml(path)
        known = {option.name for option in options}
        written = known.intersection(recipe_file.read(path, [field.name for field in fields(Recipe)]))
        values = {key: getattr(whole, key) for key in written} | values
    if takes_recipe:
        own = inspect.signature(function).parameters
        of_recipe = {key: values.pop(key) for key in list(values) if key not in own}
        values["recipe"] = Recipe(**of_recipe)
    return values


def help_of(name: str, function: Command) -> str:
    """Return what ``selfdistill COMMAND --help`` prints."""
    return _parser(name, function, options_of(function)).format_help().rstrip()


def options_of(function: Command) -> list[Option]:
    """Return the options of a command, its own before the recipe's.

    A recipe's field is left to the command where that has a parameter of its name or of its plural: ``seeds`` says
    which ``seed`` each run has.
    """
    hints, helps = get_type_hints(function), _argument_helps(function)
    parameters = inspect.signature(function).parameters.values()
    own = [
        Option(parameter.name, hints[parameter.name], parameter.default, helps[parameter.name])
        for parameter in parameters
        if hints[parameter.name] is not Recipe
    ]
    if len(own) == len(parameters):
        return own
    hints, helps, topic = get_type_hints(Recipe), _argument_helps(Recipe), ""
    taken = {option.name for option in own} | {option.name.removesuffix("s") for option in own}
    for field in fields(Recipe):
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


class _Parser(argparse.ArgumentParser):
    """A parser that leaves the process and the screen alone."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message.replace("unrecognized arguments:", "not understood:"))


def _parser(name: str, function: Command, options: Sequence[Option]) -> _Parser:
    text = inspect.getdoc(function) or ""
    description, examples = re.split(r"\n(?:Args|Example):\n", text)[0], re.search(r"\nExample:\n(.+)", text, re.S)
    parser = _Parser(
        prog=f"selfdistill {name}",
        usage=_usage(name, options),
        description="\n\n".join(textwrap.fill(part, _WIDTH - 2) for part in description.split("\n\n")),
        epilog=examples and f"for example:\n{textwrap.indent(textwrap.dedent(examples[1]).rstrip(), '  ')}",
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=26, width=_WIDTH),
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
    )
    groups: dict[str, Any] = {}
    for option in options:
        title = option.topic or ("arguments" if option.positional else "options")
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add(groups[title], option)
    if any(option.topic for option in options):
        told = "a YAML file of options; what is typed beside it wins"
        ignored = [field.name for field in fields(Recipe) if field.name not in [option.name for option in options]]
        if ignored:
            told += f"; its {' and '.join(ignored)} are not used here"
        groups["options"].add_argument("--recipe", metavar="FILE", help=told, default=argparse.SUPPRESS)
    return parser


def _add(group: Any, option: Option) -> None:
    # Everything is read as text, and only what was typed is returned: defaults are the function's own.
    common: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS, "help": _help(option)}
    if option.positional:
        del common["dest"]
        group.add_argument(option.name, nargs="*" if option.several else "?", metavar=option.spelled, **common)
    elif option.hint is bool and option.topic:  # a recipe's file may have switched it on
        group.add_argument(option.spelled, action=argparse.BooleanOptionalAction, **common)
    elif option.hint is bool:
        group.add_argument(option.spelled, action="store_true", **common)
    elif bool in get_args(option.hint):
        group.add_argument(option.spelled, nargs="?", const=True, metavar=_metavar(option), **common)
    else:
        group.add_argument(option.spelled, nargs="+" if option.several else None, metavar=_metavar(option), **common)


def _metavar(option: Option) -> str:
    kinds = [kind for kind in get_args(option.hint) if kind is not NoneType]
    kind = kinds[0] if get_origin(option.hint) in (Union, UnionType) else option.hint
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    if get_origin(kind) in (tuple, list):
        return {int: "N,N,..", float: "X,X,.."}.get(get_args(kind)[0], "TEXT")
    return {int: "N", float: "X", Path: "PATH", str: "TEXT"}[kind]


def _help(option: Option) -> str:
    default = option.default
    if option.positional or default is None or default is False:
        return option.help.replace("%", "%%")
    if option.several:
        shown = " ".join(f'"{item}"' for item in default)
    else:
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return option.help.replace("%", "%%") + (f" [{shown}]" if shown else "")


def _usage(name: str, options: Sequence[Option]) -> str:
    places = [f" {option.spelled}{' ...' if option.several else ''}" for option in options if option.positional]
    return f"selfdistill {name}{''.join(places)}" + (" [--option value ...]" if len(options) > len(places) else "")


def _check_names(words: Sequence[str], options: Sequence[Option]) -> None:
    known = {option.spelled for option in options if not option.positional}
    known |= {"--no-" + option.spelled[2:] for option in options if option.topic and option.hint is bool}
    known |= {"--recipe"} if any(option.topic for option in options) else set()
    seen: set[str] = set()
    for word in words:
        flag = word.partition("=")[0]
        if not flag.startswith("--"):
            continue
        if flag not in known:
            raise ValueError(f"unknown option {flag!r}{nearest(flag.replace('_', '-'), known)}")
        if flag in seen:
            raise ValueError(f"{flag} is given twice")
        seen.add(flag)


def _explained(error: argparse.ArgumentError) -> str:
    flag = (error.argument_name or "").split("/")[0].split(",")[0]
    if error.message.startswith("expected"):
        return f"{flag} needs a value"
    if error.message.startswith("ignored explicit argument"):
        return f"{flag} takes no value: it is switched on by itself"
    return f"{flag}: {error.message}"


def _number(text: str, kind: type) -> Any:
    """A whole number as such where one is wanted; everything else as it was typed, for ``convert`` to judge."""
    return int(text) if kind is int and re.fullmatch(r"[+-]?[0-9]+", text.strip()) else text


def _argument_helps(of: Any) -> dict[str, str]:
    """Return the lines under ``Args:`` or ``Attributes:`` of a docstring by name."""
    section = re.search(r"\n(?:Args|Attributes):\n((?:    .*\n?)+)", inspect.getdoc(of) or "")
    return dict(re.findall(r"^    (\w+): (.+)$", section[1], re.MULTILINE)) if section else {}
