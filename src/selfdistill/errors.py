"""Errors that name the argument at fault, in Python's spelling, or the run whose numbers are not finite."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfdistill.text import quote


class ArgumentError(ValueError):
    """An argument has a value that does not fit.

    Messages put the names of arguments in backticks, here and in the remedies of other errors ("choose another
    `out`"); the command line shows its options in their place.

    Attributes:
        argument: its name, such as ``"batch_size"``.
        problem: what is wrong with it and what to do; the message after the name.

    Example:
        >>> print(ArgumentError("batch_size", "must be at least 1, not 0"))
        `batch_size` must be at least 1, not 0
    """

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(argument, problem)  # both: an error from another process is rebuilt of these
        self.argument = argument
        self.problem = problem

    def __str__(self) -> str:
        return f"`{self.argument}`{'' if self.problem.startswith(':') else ' '}{self.problem}"


def check_range(argument: str, value: float | None, least: float, most: float) -> None:
    """Refuse a number outside a range; None is in it.

    Raises:
        ArgumentError: "`argument` must be from <least> to <most>, not <value>".
    """
    if value is not None and not least <= value <= most:
        raise ArgumentError(argument, f"must be from {least:,} to {most:,}, not {quote(value)}")


def check_folder(argument: str, path: Path) -> None:
    """Refuse a file where a folder is wanted; a folder that is still missing is none.

    Raises:
        ArgumentError: "`argument` is <path>, a file: name a folder".
    """
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise ArgumentError(argument, f"is {path}, but {there} is a file: name a folder")


@contextmanager
def blaming(argument: str) -> Iterator[None]:
    """Name the argument whose value a ValueError inside is about, unless the error names one itself.

    Example:
        >>> with blaming("data"):
        ...     raise ValueError("photos has no class folders")
        Traceback (most recent call last):
        selfdistill.errors.ArgumentError: `data`: photos has no class folders
    """
    try:
        yield
    except ArgumentError:
        raise
    except ValueError as error:
        raise ArgumentError(argument, f": {error}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, NumPy's, or that of a device, for which torch has several errors."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in str(error) or "DefaultCPUAllocator" in str(error))
    )


def explain(error: BaseException) -> str:
    """Return an error's message, and that of an allocator in plain words.

    Example:
        >>> print(explain(MemoryError("Unable to allocate 5.00 TiB for an array")))
        memory ran out (5.00 TiB were to be allocated): choose smaller batches, images or networks
    """
    if not is_out_of_memory(error):
        return str(error)
    asked = re.search(r"allocate (\d+(?:\.\d+)? (?:bytes|[KMGTPE]i?B))", str(error))
    size = f" ({asked[1]} were to be allocated)" if asked else ""
    return f"memory ran out{size}: choose smaller batches, images or networks"


class NonFiniteError(ValueError):
    """A loss, a weight or a logit is not a finite number."""


@contextmanager
def naming(place: object) -> Iterator[None]:
    """Put the name of a run or a network before what a NonFiniteError inside says.

    Example:
        >>> with naming("runs/photos"):
        ...     raise NonFiniteError("the weights are not finite")
        Traceback (most recent call last):
        selfdistill.errors.NonFiniteError: runs/photos: the weights are not finite
    """
    try:
        yield
    except NonFiniteError as error:
        raise type(error)(f"{place}: {error}") from None
