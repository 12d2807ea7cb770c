"""From the words after a command's name to its arguments, and its help; argparse cuts the words apart, no more."""

import argparse
import inspect
import re
import textwrap
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from selfdistill.options.option import Command, Option, nearest, options_of, recipe_of, value_of
from selfdistill.train import recipe_file

_WIDTH = 80


def parse(name: str, function: Command, words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of a command from what was typed after its name.

    A parameter ``recipe: Recipe`` (any :class:`~selfdistill.train.recipe_file.YamlRecipe`) stands for an option of each
    of the recipe's fields that is no parameter itself, and for ``--recipe FILE``, whose values hold where nothing was
    typed.

    Raises:
        ValueError: an unknown option, a missing or a wrong value; one line.
        OSError: the recipe cannot be read.

    Example:
        >>> def shrink(image: Path, size: int = 32): "Shrink an image."
        >>> parse("shrink", shrink, ["--size", "16", "cat.png"])
        {'image': PosixPath('cat.png'), 'size': 16}
    """
    options = options_of(function)
    recipe = recipe_of(function)
    parser = _parser(name, function, options)
    _check_names(words, options)
    try:
        typed = vars(parser.parse_intermixed_args(words))
    except argparse.ArgumentError as error:
        raise ValueError(_explained(error)) from None
    file = typed.pop("recipe", None)
    values = {option.name: option.value(typed[option.name]) for option in options if option.name in typed}
    missing = [option.spelled for option in options if not option.optional and option.name not in values]
    if missing:
        raise ValueError(f"{' and '.join(missing)} must be given: {_usage(name, options)}")
    if recipe is not None:
        if file is not None:
            path = value_of("--recipe", file, Path)
            whole = recipe.from_yaml(path)
            known = {option.name for option in options}
            written = known.intersection(recipe_file.read(path, [field.name for field in fields(recipe)]))
            values = {key: getattr(whole, key) for key in written} | values
        own = inspect.signature(function).parameters
        of_recipe = {key: values.pop(key) for key in list(values) if key not in own}
        values["recipe"] = recipe(**of_recipe)
    return {option.name: None for option in options if option.positional and option.optional} | values


def help_of(name: str, function: Command) -> str:
    """Return what ``selfdistill COMMAND --help`` prints."""
    return _parser(name, function, options_of(function)).format_help().rstrip()


class _Parser(argparse.ArgumentParser):
    """A parser that leaves the process and the screen alone."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message.replace("unrecognized arguments:", "not understood:"))


def _parser(name: str, function: Command, options: Sequence[Option]) -> _Parser:
    text, recipe = inspect.getdoc(function) or "", recipe_of(function)
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
    if recipe is not None:
        told = "a YAML file of options; what is typed beside it wins"
        ignored = [field.name for field in fields(recipe) if field.name not in [option.name for option in options]]
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
    if get_origin(kind) is list:
        kind = get_args(kind)[0]
    if get_origin(kind) is tuple:
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
    places = [
        f" [{option.spelled}]" if option.optional else f" {option.spelled}{' ...' if option.several else ''}"
        for option in options
        if option.positional
    ]
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
