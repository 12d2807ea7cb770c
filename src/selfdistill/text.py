"""Words for messages: the nearest known name, a list of names, a duration, and texts and values of any origin."""

import csv
import difflib
import io
import re
import reprlib
import unicodedata
from collections.abc import Iterable, Sequence

# Control characters, those that turn the direction of writing, and the halves of characters that no file can hold.
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_FORMULAS = "=+-@＝＋－＠"  # noqa: RUF001 - spreadsheets take the wide ones too


def printable(text: str, keep: str = "") -> str:
    r"""Return a text that shows as it is: a character that would steer a terminal or a page becomes its escape.

    Whatever may hold a file's name, a class's name or another program's words goes through here before it is shown.

    Example:
        >>> print(printable("cat\x1b[2J"))
        cat\x1b[2J
    """
    return _STEERING.sub(
        lambda at: at[0] if at[0] in keep else at[0].encode("unicode_escape").decode(), escape_surrogates(text)
    )


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV; a text that a spreadsheet would take for a formula begins with an apostrophe.

    Example:
        >>> csv_text([["=1+1", -1.5, None]])
        "'=1+1,-1.5,\\n"
    """

    def safe(cell: object) -> object:
        if not isinstance(cell, str):
            return cell
        return f"'{printable(cell)}" if cell.lstrip()[:1] in tuple(_FORMULAS) else printable(cell)

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(safe, row) for row in rows)
    return text.getvalue()


class _Repr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() < 1000 else f"a whole number of {x.bit_length()} bits"


def quote(value: object, limit: int = 80) -> str:
    """Return a value of any size and origin for a message: its repr, cut to ``limit`` characters.

    Example:
        >>> quote("cat"), quote([0.5, "x"]), len(quote("x" * 10**6))
        ("'cat'", "[0.5, 'x']", 80)
    """
    short = _Repr()
    short.maxstring = short.maxother = short.maxlong = limit
    short.maxlevel, short.maxlist, short.maxtuple, short.maxdict, short.maxset = 3, 9, 9, 9, 9
    text = short.repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Return the known name that is most like ``name``; capitals, ``-``, ``_`` and spaces do not count.

    Args:
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
        otherwise: what to say instead of all names, if none is near.

    Example:
        >>> print("unknown method 'SDDroput';", suggest("SDDroput", ["Dropout", "SDDropout"]))
        unknown method 'SDDroput'; did you mean 'SDDropout'?
        >>> print("unknown method 'x';", suggest("x", ["Dropout", "SDDropout"]))
        unknown method 'x'; choose from Dropout and SDDropout
    """
    known = list(known)
    near = nearest(name, known)
    return otherwise or f"choose from {join_names(known)}" if near is None else f"did you mean {quote(near)}?"


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


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type.

    Example:
        >>> first_line(OSError("no route\\nto host")), first_line(KeyError())
        ('no route', 'KeyError')
    """
    return (str(error).splitlines() or [""])[0] or type(error).__name__


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
