"""A record in which one thing is different: records are frozen."""

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def changed(of: T, value: object, *path: str | int) -> T:
    """The same struct, dict or tuple with another value at the end of a path of fields, keys and positions."""
    first, *rest = path
    there: Any = of
    if isinstance(there, msgspec.Struct):
        inner = changed(getattr(there, str(first)), value, *rest) if rest else value
        there = msgspec.structs.replace(there, **{str(first): inner})
    elif isinstance(there, dict):
        there = there | {first: changed(there[first], value, *rest) if rest else value}
    else:
        inner = changed(there[first], value, *rest) if rest else value
        there = tuple(inner if at == first else one for at, one in enumerate(there))
    unchanged: T = there
    return unchanged
