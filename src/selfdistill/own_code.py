"""Exceptions raised in code of a user's own, such as a model's function or forward: where, and what, in one line."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfdistill.errors import is_out_of_memory

_BUILDERS = "selfdistill.models.function"
_OF_OTHERS = ("torch", "torchvision", "timm", "lightning_fabric")
"""Packages whose modules call, or are called, where a model is: an error in them is that of their caller."""


class OwnCodeError(RuntimeError):
    """Code of the user's own raised an exception, which is the cause of this one."""


@contextmanager
def explained_own_code() -> Iterator[None]:
    """Raise an OwnCodeError of one line for what code of the user's own raises inside."""
    try:
        yield
    except Exception as error:
        if (place := raised_in_own_code(error)) is None or is_out_of_memory(error):  # the code is right, but too large
            raise
        raise OwnCodeError(place) from error


def raised_in_own_code(error: BaseException) -> str | None:
    """Return where code of the user's own raised an error, and which; None where it was other code.

    That is the code behind the last call of this package, if this called a module of torch or a function that builds
    one. An error in a library is that of the line that called it.

    Example:
        >>> raised_in_own_code(ValueError("not raised")) is None
        True
    """
    own: tuple[str, str] | None = None
    package, through = "", False  # of the first frame of the user's own; whether a model or its function was called
    for frame, line in traceback.walk_tb(error.__traceback__):
        module, code = str(frame.f_globals.get("__name__", "")), frame.f_code
        root = module.partition(".")[0]
        if root == "selfdistill":
            own, package, through = None, "", module == _BUILDERS
        elif root in _OF_OTHERS or root in sys.stdlib_module_names or code.co_filename.startswith("<"):
            through = through or module.startswith("torch.nn.modules")
        elif through and (root == (package or root) or "site-packages" not in code.co_filename):
            package = package or root
            own = (
                code.co_qualname.replace("<module>", module).replace("<locals>.", ""),
                f"{_short(code.co_filename)}, line {line}",
            )
    if own is None:
        return None
    said = " ".join(str(error).split())
    return f"{own[0]} ({own[1]}) raised {type(error).__name__}{f': {said[:300]}' if said else ''}"


def traceback_of_own_code(error: BaseException) -> str:
    """Return the traceback of an error that code of the user's own raised, itself or as its cause; "" of others."""
    one: BaseException | None = error
    while one is not None:
        if raised_in_own_code(one) is not None:
            return "".join(traceback.format_exception(error))
        one = one.__cause__
    return ""


def _short(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
