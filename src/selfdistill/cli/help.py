"""Help pages in plain text: two columns, at most 100 characters wide."""

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

_COLUMN = 26
"""Where the explanations start."""

_VALUES = {"INT": "N", "FLOAT": "X", "STR": "TEXT", "CHOICE": "NAME"}


class TextHelp:
    """A cyclopts help formatter: a heading and two columns for each group of options."""

    def render_usage(self, console: "Console", options: "ConsoleOptions", usage: Any) -> None:
        """Print the usage line."""
        _print(console, f"Usage: {str(usage).strip()}")

    def render_description(self, console: "Console", options: "ConsoleOptions", description: Any) -> None:
        """Print the docstring: paragraphs filled, indented examples as they are."""
        for text in description.primary_renderable.plain.strip().split("\n\n"):
            _print(console, "\n" + _paragraph(text, _width(console)))

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        """Print one group of options, or the commands."""
        names = [_names(entry) for entry in panel.entries]
        column = min(_COLUMN, max(map(len, names), default=0) + 4) if panel.format == "command" else _COLUMN
        if names:
            _print(console, f"\n{panel.title}:")
        for name, entry in zip(names, panel.entries, strict=True):
            _print(console, _row(name, _explanation(entry), column, _width(console)))


def _row(name: str, text: str, column: int, width: int) -> str:
    indent = " " * column
    filled = textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return f"  {name}\n{filled}" if len(name) + 3 > column else f"  {name}{filled[len(name) + 2 :]}"


def _names(entry: "HelpEntry") -> str:
    if entry.positional_label:
        return entry.positional_label
    if entry.negative_names:  # a switch that a recipe may have turned on
        return f"--[no-]{entry.positive_names[0][2:]}"
    names = ", ".join((*entry.positive_shorts, *entry.positive_names))
    kind, several, _ = (entry.metavar or "").partition("...")
    value = _VALUES.get(kind, kind) + several
    return f"{names} {f'[{value[:-5]}]' if value.endswith('|BOOL') else value}".rstrip()


def _explanation(entry: "HelpEntry") -> str:
    text = " ".join(entry.description.primary_renderable.plain.split()) if entry.description else ""
    text, _, default = text.removesuffix(")").partition(" (default: ") if " (default: " in text else (text, "", "")
    default = default or entry.default or ""
    facts = [f"one of {', '.join(entry.choices)}"] if entry.choices else []
    facts += [f"default: {default}"] if default else []
    return f"{text} ({'; '.join(facts)})" if facts else text


def _paragraph(text: str, width: int) -> str:
    lines = text.splitlines()
    examples = [line for line in lines if line.startswith("    ")]
    prose = textwrap.fill(" ".join(lines[: len(lines) - len(examples)]), width, break_on_hyphens=False)
    return "\n".join([*([prose] if prose else []), *(line[2:] for line in examples)])


def _width(console: "Console") -> int:
    return min(console.width, 100)


def _print(console: "Console", text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
