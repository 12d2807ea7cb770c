"""The commands as one cyclopts app."""

import functools
import inspect
import logging
import platform
import sys
from typing import Annotated, Any

from cyclopts import App, Group, Parameter

from selfdistill import __version__
from selfdistill.cli import say
from selfdistill.cli.commands.calibrate import calibrate
from selfdistill.cli.commands.compare import compare
from selfdistill.cli.commands.demo import demo
from selfdistill.cli.commands.detect import detect
from selfdistill.cli.commands.evaluate import evaluate
from selfdistill.cli.commands.export import export
from selfdistill.cli.commands.methods import methods
from selfdistill.cli.commands.predict import predict
from selfdistill.cli.commands.report import report
from selfdistill.cli.commands.reproduce import reproduce
from selfdistill.cli.commands.train import train
from selfdistill.cli.commands.tune import tune
from selfdistill.cli.help import TextHelp
from selfdistill.cli.options import ARGUMENTS, OPTIONS, Command, default_text
from selfdistill.errors import ArgumentError
from selfdistill.own_code import explained_own_code, traceback_of_own_code
from selfdistill.text import printable

COMMANDS: dict[str, Command] = {
    command.__name__: command
    for command in (
        demo,
        compare,
        tune,
        train,
        evaluate,
        detect,
        reproduce,
        report,
        calibrate,
        predict,
        export,
        methods,
    )
}


def _usage(command: Command) -> str:
    """Return ``selfdistill predict RUN PATHS... [OPTIONS]``."""
    words = ["selfdistill", command.__name__]
    for name, one in inspect.signature(command).parameters.items():
        if one.kind is one.VAR_POSITIONAL:
            words.append(f"{name.upper()}...")
        elif one.kind is one.POSITIONAL_ONLY:
            words.append(name.upper() if one.default is one.empty else f"[{name.upper()}]")
    return " ".join([*words, "[OPTIONS]"])


_VERBOSE = "say which files are written, and what is computed where"


class _Lines(logging.Handler):
    """What is logged, on standard error: in one line, a traceback as it is."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "\n" in text:
            print(printable(text, keep="\n"), end="", file=sys.stderr)
        elif text:
            say(text)


def _with_verbosity(command: Command) -> Command:
    """Give a command ``--quiet`` and ``--verbose``: the level of the logger ``selfdistill``."""

    @functools.wraps(command)
    def run(*words: Any, quiet: bool = False, verbose: bool = False, **options: Any) -> None:
        if quiet and verbose:
            raise ArgumentError("quiet", "and `verbose` exclude each other")
        logger, lines = logging.getLogger("selfdistill"), _Lines()
        logger.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
        logger.addHandler(lines)
        try:
            logger.debug("version %s, Python %s, %s", __version__, platform.python_version(), platform.platform())
            with explained_own_code():
                command(*words, **options)
        except Exception as error:
            logger.debug(traceback_of_own_code(error))
            raise
        finally:
            logger.removeHandler(lines)

    own, flags = inspect.signature(command), inspect.signature(_verbosity)
    run.__signature__ = own.replace(parameters=[*own.parameters.values(), *flags.parameters.values()])  # type: ignore[attr-defined]
    run.__annotations__ = command.__annotations__ | _verbosity.__annotations__
    return run


def _verbosity(
    *,
    quiet: Annotated[bool, Parameter(("--quiet", "-q"), negative="", group=OPTIONS, help="show no progress")] = False,
    verbose: Annotated[bool, Parameter(("--verbose", "-v"), negative="", group=OPTIONS, help=_VERBOSE)] = False,
) -> None:
    """Hold the options that every command has."""


app = App(
    name="selfdistill",
    help="Train a better image classifier with the network you have: self-knowledge distillation.",
    usage="selfdistill COMMAND [OPTIONS]",
    version=__version__,
    version_flags=("--version", "-V"),
    group_commands=Group("Commands", sort_key=0),
    group_arguments=ARGUMENTS,
    group_parameters=OPTIONS,
    default_parameter=Parameter(negative="", json_list=False, show_default=default_text),
    help_format="plaintext",
    help_formatter=TextHelp(),
    result_action="return_none",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
)
for _position, _command in enumerate(COMMANDS.values()):
    app.command(_with_verbosity(_command), sort_key=_position, usage=_usage(_command))
app.register_install_completion_command(help="Install completion for this shell (bash, zsh, fish).", group=OPTIONS)
for _flag, _help in (("--help", "Show this page; after a command, its options."), ("--version", "Show the version.")):
    app[_flag].group, app[_flag].help = (OPTIONS,), _help
