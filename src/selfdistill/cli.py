"""The command line: one dict from a command to its function, whose signature is the command's options.

    selfdistill COMMAND [--option value ...]

A parameter ``recipe: Recipe`` stands for every field of a recipe as an option of its own; ``--recipe FILE`` sets them
from YAML and what is typed beside it wins. Nothing here imports torch: ``--help`` and typing errors are instant.
"""

import difflib
import inspect
import os
import re
import sys
from argparse import Action, ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from selfdistill import __version__, commands
from selfdistill.train.recipe import Recipe

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": commands.demo,
    "compare": commands.compare,
    "train": commands.train,
    "evaluate": commands.evaluate,
    "report": commands.report,
    "predict": commands.predict,
    "methods": commands.methods,
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0, 2 after a user's mistake (one line says which), 128 + signal when stopped."""
    try:
        run(sys.argv[1:] if arguments is None else list(arguments))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: nobody to tell
        sys.exit(1)
    except KeyboardInterrupt as interruption:
        _say(str(interruption) or "stopped")
        sys.exit(getattr(interruption, "exit_status", 130))
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        if os.environ.get("SELFDISTILL_TRACEBACK"):
            raise
        _say(f"error: {error}")
        sys.exit(2)
    sys.exit(0)


def run(arguments: list[str]) -> None:
    """Run one command.

    Raises:
        ValueError: an unknown command or option, or a value that does not fit.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return
    if arguments[0] == "--version":
        print(__version__)
        return
    name, *options = arguments
    if name not in COMMANDS:
        raise ValueError(f"unknown command {name!r}{_nearest(name, COMMANDS)}; there are {', '.join(COMMANDS)}")
    function = COMMANDS[name]
    parser = _parser(name, function)
    values = _parse(parser, options)
    recipe_file = values.pop("recipe", None)
    if recipe_file is not None:
        parser.set_defaults(
            {key: value for key, value in asdict(Recipe.from_yaml(recipe_file)).items() if key in values}
        )
        values = _parse(parser, options)
        values.pop("recipe")
    if "recipe" in inspect.signature(function).parameters:
        given = {
            field.name: values.pop(field.name) for field in fields(Recipe) if field.name in _recipe_options(function)
        }
        values["recipe"] = Recipe(**given)
    function(**values)


class _Parser(ArgumentParser):
    def format_usage(self) -> str:
        return f"usage: {self.prog}\n"


class _Help(DefaultHelpFormatter):
    """What the option means and its default; no Python types."""

    def _get_help_string(self, action: Action) -> str:
        shown = action.default not in (None, False, True, (), "==SUPPRESS==") and action.option_strings
        return (action.help or "").replace("%", "%%") + (" [%(default)s]" if shown else "")

    def _format_usage(self, usage: str | None, actions: Any, *args: Any, **kwargs: Any) -> str:
        positionals = "".join(
            f" {action.metavar or action.dest.upper()}" for action in actions if not action.option_strings
        )
        return f"usage: {self._prog}{positionals} [--option value ...]\n\n"


def _parser(name: str, function: Callable[..., None]) -> ArgumentParser:
    text = parse_docstring(function.__doc__ or "")
    description = "\n\n".join(part for part in (text.short_description, text.long_description) if part)
    parser = ArgumentParser(
        prog=f"selfdistill {name}",
        description=description,
        formatter_class=_Help,
        exit_on_error=False,
        allow_abbrev=False,
    )
    helps = {parameter.arg_name: " ".join((parameter.description or "").split()) for parameter in text.params}
    hints = get_type_hints(function)
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        if hint is Recipe:
            parser.add_argument("--recipe", type=str, metavar="FILE", help="a YAML recipe; options typed beside it win")
            parser.add_class_arguments(Recipe, skip=set(_all_fields()) - _recipe_options(function))
            continue
        positional = parameter.default is parameter.empty
        several = get_origin(hint) is list
        options: dict[str, Any] = {"type": get_args(hint)[0] if several else hint, "help": helps.get(parameter.name)}
        if several:
            options["nargs"] = "+"
        if not positional:
            options["default"] = parameter.default
        parser.add_argument(parameter.name if positional else f"--{parameter.name}", **options)
    _use_dashes(parser)
    return parser


def _use_dashes(parser: ArgumentParser) -> None:
    # jsonargparse names options after the parameters; on a command line people type --image-size.
    for action in parser._actions:
        action.option_strings = [option.replace("_", "-") for option in action.option_strings]
        for option in action.option_strings:
            parser._option_string_actions[option] = action


def _all_fields() -> list[str]:
    return [field.name for field in fields(Recipe)]


def _recipe_options(function: Callable[..., None]) -> set[str]:
    """Return the recipe's fields that are options of this command: those it does not set itself (methods sets method)."""
    own = inspect.signature(function).parameters
    return set(_all_fields()) - set(own) - {name.removesuffix("s") for name in own}


def _parse(parser: ArgumentParser, options: list[str]) -> dict[str, Any]:
    known = parser._option_string_actions
    spelled = []
    for at, option in enumerate(options):
        flag, _, value = option.partition("=")
        if flag.startswith("--") and flag not in known:
            raise ValueError(f"unknown option {flag!r}{_nearest(flag.replace('_', '-'), known)}")
        spelled.append(option)
        switch = not value and flag in known and getattr(known[flag], "_typehint", None) is bool
        if switch and options[at + 1 : at + 2] not in (["true"], ["false"]):
            spelled.append("true")
    try:
        values: Namespace = parser.parse_args(spelled)
    except ArgumentError as error:
        raise ValueError(_one_line(error)) from None
    return dict(vars(values))


def _one_line(error: ArgumentError) -> str:
    text = " ".join(str(error.message).split())
    text = re.sub(r'Parser key "(\w+)":', lambda key: f"--{key[1].replace('_', '-')}:", text)
    for kind, wanted in (("int", "a whole number"), ("float", "a number"), ("bool", "true or false")):
        text = text.replace(f"Expected a <class '{kind}'>.", f"expected {wanted}.")
    return text


def _overview() -> str:
    lines = [
        "usage: selfdistill COMMAND [--option value ...]",
        "",
        "A better image classifier from the network you have.",
        "",
    ]
    for name, function in COMMANDS.items():
        lines.append(f"  {name:<10} {(function.__doc__ or '').splitlines()[0]}")
    return "\n".join([*lines, "", "selfdistill COMMAND --help explains a command; --version prints the version."])


def _nearest(name: str, known: Sequence[str] | dict[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _say(text: str) -> None:
    print("selfdistill: " + " ".join(text.split()), file=sys.stderr)
