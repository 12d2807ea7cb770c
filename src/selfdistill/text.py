"""Words for messages: the nearest known name, a list of names, a duration."""

import difflib
import re
import unicodedata
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Return the known name that is most like ``name``; capitals, ``-``, ``_`` and spaces do not count.

    Args:
        name: as it was typed.
        known: the right names.
        cutoff: least similarity in [0, 1] of a name that is returned; 0 always returns one.

    Example:
        >>> nearest("cifar-100", ["cifar10", "cifar100"]), nearest("zzz", ["cifar10"])
        ('cifar100', None)
    """
    by_plain = {_plain(word): word for word in known}
    found = difflib.get_close_matches(_plain(name), by_plain, n=1, cutoff=cutoff)
    return by_plain[found[0]] if found else None


def suggest(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """Return the end of an error message about an unknown name: the nearest known one, or else all of them.

    Args:
        name: as it was typed.
        known: the right names.
        otherwise: what to say instead of all names, if none is near.

    Example:
        >>> print("unknown method 'SDDroput';", suggest("SDDroput", ["Dropout", "SDDropout"]))
        unknown method 'SDDroput'; did you mean 'SDDropout'?
        >>> print("unknown method 'x';", suggest("x", ["Dropout", "SDDropout"]))
        unknown method 'x'; choose from Dropout and SDDropout
    """
    known = list(known)
    near = nearest(name, known)
    return otherwise or f"choose from {join_names(known)}" if near is None else f"did you mean {near!r}?"


def join_names(names: Iterable[str], word: str = "and") -> str:
    """Join names as in a sentence.

    Example:
        >>> join_names(["A", "B", "C"]), join_names(["A", "B"], "or"), join_names(["A"])
        ('A, B and C', 'A or B', 'A')
    """
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last


def plain_name(name: str) -> str:
    r"""Return a name of the file system as text that can be written: composed (NFC), bytes that are no UTF-8 escaped.

    Example:
        >>> plain_name("cafe\u0301") == "caf\u00e9", print(plain_name("caf\udce9"))
        caf\xe9
        (True, None)
    """
    return name if name.isascii() else unicodedata.normalize("NFC", escape_surrogates(name))


def escape_surrogates(text: str) -> str:
    r"""Return a text that UTF-8 can hold: what Python made of another byte is written as ``\xe9``."""
    return re.sub("[\ud800-\udfff]", lambda found: ascii(found[0])[1:-1].replace("\\udc", "\\x"), text)


def count_of(number: int, thing: str) -> str:
    """Return a number of things.

    Example:
        >>> count_of(1, "image"), count_of(2000, "image")
        ('1 image', '2,000 images')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """Return a rough duration.

    Example:
        >>> format_duration(20), format_duration(900), format_duration(8000), format_duration(2e6)
        ('20 s', '15 min', '2.2 h', '23 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.0f} days"


def _plain(name: str) -> str:
    return name.lower().translate(str.maketrans("", "", "-_ "))
