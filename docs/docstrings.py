"""Docstrings as Markdown: for the methods' cards, which docs/make.py fills, and for the site's Python reference."""

import inspect
import re

_SECTION = re.compile(r"^(Args|Raises|Example|Source):", re.MULTILINE)
_MATH = re.compile(r"^( *)\.\. math::((?:.*\S.*)?(?:\n+\1 +\S.*)*)", re.MULTILINE)


def to_markdown(docstring: str) -> str:
    r"""Return a docstring with ``$`` around formulas and plain code for references.

    Example:
        >>> to_markdown(":math:`T^2`, see :func:`~selfdistill.losses.kl`")
        '$T^2$, see `kl`'
    """
    text = _MATH.sub(lambda block: f"{block[1]}$$\n{block[1]}{' '.join(block[2].split())}\n{block[1]}$$", docstring)
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    text = re.sub(r":(?:class|func|meth|mod|data):`(?:~[\w.]*?(?=\w+`))?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


def card(method: type) -> dict[str, str]:
    """Return the parts of a method's card that its docstring holds: definition, arguments and source."""
    docstring = inspect.getdoc(method) or ""
    found = list(_SECTION.finditer(docstring))
    ends = [match.start() for match in found[1:]] + [len(docstring)]
    sections = {match[1]: docstring[match.end() : end] for match, end in zip(found, ends, strict=True)}
    _, _, definition = docstring[: found[0].start()].partition("\n\n")
    parts = {"definition": to_markdown(definition.strip())}
    if "Args" in sections:
        parts["arguments"] = _table(method, sections["Args"])
    if "Source" in sections:
        parts["source"] = f"**Source.** {to_markdown(sections['Source'].strip())}"
    return parts


def _table(method: type, section: str) -> str:
    """Return a table of the arguments: name, default, meaning."""
    defaults = {name: one.default for name, one in inspect.signature(method).parameters.items()}
    rows = ["| argument | default | meaning |", "|:--|:--|:--|"]
    for name, meaning in re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", section, re.MULTILINE):
        default = "" if defaults[name] is inspect.Parameter.empty else f"`{defaults[name]!r}`".replace("'", '"')
        rows.append(f"| `{name}` | {default} | {_cell(to_markdown(' '.join(meaning.split())))} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    """Return a text in which no bar ends a table's cell, within formulas or without."""
    formula = re.compile(r"\$[^$]+\$")
    inside = [re.sub(r"\\\| *", r"\\Vert ", one).replace("|", r"\vert ") for one in formula.findall(text)]
    outside = [one.replace("|", r"\|") for one in formula.split(text)]
    return "".join(a + b for a, b in zip(outside, [*inside, ""], strict=True))
