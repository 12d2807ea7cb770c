"""The command line, ``selfdistill COMMAND [--option value ...]``: one module of `commands` each, and what all share.

A command is a typed function; its docstring is its help. It turns words into configs and calls the library. Nothing
imports torch before a command runs: ``--help`` and mistakes in the words are instant.
"""

import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from selfdistill import __version__
from selfdistill.errors import explain
from selfdistill.own_code import traceback_of_own_code
from selfdistill.text import printable

_EXTRA_OF = {"faster_coco_eval": "detect"}  # the others are of [lab]
_LONGEST = 2000  # characters of a line on standard error


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit.

    The status is 0; 2 after a user's mistake, which one line on standard error names; 128 + the signal's number when
    interrupted; 1 when the reader of the output has gone. Anything else is an error in this package and shows its
    traceback, with status 1.

    Args:
        arguments: the words after ``selfdistill``; those of this process by default.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a minus sign must not end a run on a terminal without one
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_each_once()
            _run(words)
        print(end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more can be written
        sys.exit(1)
    except KeyboardInterrupt as interruption:
        say(str(interruption) or "interrupted")
        sys.exit(getattr(interruption, "exit_status", 130))
    except (ValueError, RuntimeError, OSError, MemoryError, ModuleNotFoundError) as error:
        if os.environ.get("SELFDISTILL_TRACEBACK") or _is_bug(error):
            raise
        say(f"error: {_explain(error, words)}")
        sys.exit(2)
    sys.exit(0)


def _run(words: list[str]) -> None:
    if words in (["--version"], ["-V"]):
        print(__version__)
        return
    # Imported here, so that main() can say what is missing where the extra [lab] is not installed.
    from cyclopts import CycloptsError

    from selfdistill.cli.app import app
    from selfdistill.cli.errors import explain_words

    if words[:1] == ["predict"]:
        words = ["./-" if word == "-" else word for word in words]  # the same path, which cyclopts takes for no option
    try:
        app(words)
    except CycloptsError as error:
        raise ValueError(explain_words(error)) from error


def _explain(error: Exception, words: Sequence[str]) -> str:
    if isinstance(error, ModuleNotFoundError):
        missing = (error.name or "").partition(".")[0]
        return f'the command needs {missing}: pip install "selfdistill[{_EXTRA_OF.get(missing, "lab")}]"'
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"

    from selfdistill.cli.errors import spell_options

    said = spell_options(explain(error), words) or type(error).__name__
    is_hidden = traceback_of_own_code(error) and not {"-v", "--verbose"}.intersection(words)
    return f"{said}; -v shows the traceback" if is_hidden else said


def _is_bug(error: Exception) -> bool:
    """Whether it is a mistake in this package, whatever the user did."""
    missing = isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "selfdistill"
    return missing or isinstance(error, NotImplementedError | RecursionError)


def _show_each_once() -> Callable[..., None]:
    """Return what shows a warning in one line, however many runs and processes give it."""
    shown: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        # Left out: a library's advice to programmers; Pillow's on large pictures, which have a limit of ours.
        advice = issubclass(category, FutureWarning | DeprecationWarning)
        if str(message) not in shown and not advice and category.__name__ != "DecompressionBombWarning":
            shown.add(str(message))
            say(f"warning: {message}")

    return show


def say(text: str) -> None:
    """Print one line on standard error, unless it cannot be written: the status says enough then."""
    line = printable(" ".join(text.split()))
    with suppress(OSError):
        print("selfdistill: " + (line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."), file=sys.stderr)
