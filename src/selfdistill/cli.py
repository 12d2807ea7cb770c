"""The command line: ``selfdistill COMMAND [--option value ...]``, and what becomes of a mistake.

A command is a function of :mod:`selfdistill.commands`; its signature is its options. Nothing here imports torch:
``--help`` and typing errors are instant.
"""

import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from selfdistill import __version__

COMMANDS = ("demo", "compare", "train", "evaluate", "detect", "reproduce", "report", "predict", "export", "methods")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit.

    The status is 0; 2 after a user's mistake, which one line on standard error names; 128 + the signal's number when
    stopped. Anything else is an error in this package and shows its traceback, with status 1.

    Args:
        arguments: what was typed; that of this process by default.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a minus sign must not end a run on a terminal without one
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            run(sys.argv[1:] if arguments is None else list(arguments))
        print(end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: nobody to tell
        sys.exit(1)
    except KeyboardInterrupt as interruption:
        _say(str(interruption) or "stopped")
        sys.exit(getattr(interruption, "exit_status", 130))
    except (ValueError, RuntimeError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("SELFDISTILL_TRACEBACK") or _is_ours(error):
            raise
        _say(f"error: {_told(error)}")
        sys.exit(2)
    sys.exit(0)


def run(arguments: list[str]) -> None:
    """Run one command.

    Raises:
        ValueError: an unknown command or option, or a value that does not fit.
    """
    # Here, so that main() can say what is missing where the extra [lab] is not installed.
    from selfdistill import commands, options

    functions = {name: getattr(commands, name) for name in COMMANDS}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview(functions))
    elif arguments[0] == "--version":
        print(__version__)
    elif arguments[0] not in functions:
        if arguments[0].startswith("-"):
            raise ValueError(f"the command comes first: selfdistill {'|'.join(COMMANDS)} [--option value ...]")
        near = options.nearest(arguments[0], COMMANDS)
        raise ValueError(f"unknown command {arguments[0]!r}{near or '; there are ' + ', '.join(COMMANDS)}")
    else:
        name, *words = arguments
        if {"-h", "--help"} & set(words):
            print(options.help_of(name, functions[name]))
        else:
            functions[name](**options.parse(name, functions[name], words))


def _overview(functions: dict[str, Any]) -> str:
    from selfdistill.options import summary_of

    return "\n".join(
        [
            "usage: selfdistill COMMAND [--option value ...]",
            "",
            "A better image classifier from the network you have.",
            "",
            *(f"  {name:<9} {summary_of(function)}" for name, function in functions.items()),
            "",
            "selfdistill COMMAND --help explains a command; --version prints the version.",
        ]
    )


def _told(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f'the command line needs {error.name}: pip install "selfdistill[lab]"'
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _is_ours(error: Exception) -> bool:
    """Whether it is a mistake in this package, whatever the user did."""
    missing = isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "selfdistill"
    return missing or isinstance(error, NotImplementedError | RecursionError)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if not issubclass(category, FutureWarning | DeprecationWarning):  # a library's advice to programmers
        _say(f"warning: {message}")


def _say(text: str) -> None:
    print("selfdistill: " + " ".join(text.split()), file=sys.stderr)
