"""What a page is made of; and the page as HTML that stands alone, as Markdown, and its figures as files."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from selfdistill.files import make_folder, remove_leftovers, write_atomically
from selfdistill.report.style import PALETTE, Draw, Panel, grid_svg, panel_svg, themed
from selfdistill.report.tables import Table, escape_markdown, markdown
from selfdistill.text import printable


@dataclass(frozen=True)
class Sheet:
    """A table with a heading above it.

    Attributes:
        table: headings and rows.
        caption: the heading; none where it is empty.
        by_method: whether the first cell of a row names a method.
        folded: whether a page shows it only when asked.
    """

    table: Table
    caption: str = ""
    by_method: bool = True
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """Panels that make one picture.

    Attributes:
        name: of its file.
        alt: what it shows.
        panels: all of one size.
        columns: how many stand side by side in the file.
        kind: of the page's grid: "wide", "narrow", "square", "full" or "".
        legend: whether the methods' names stand above; where not, each panel names its own.
        caption: how to read it, above it.
    """

    name: str
    alt: str
    panels: Sequence[Panel]
    columns: int
    kind: str = ""
    legend: bool = False
    caption: str = ""


def wide_figure(
    name: str, title: str, alt: str, draw: Draw, size: tuple[float, float], *, legend: bool = True, caption: str = ""
) -> Figure:
    """A figure of one panel, of a size in inches, over the whole width of a page."""
    return Figure(name, title, [Panel(f"{name}-0", alt, draw, *size)], 1, "full", legend, caption)


@dataclass(frozen=True)
class Thumbnail:
    """A picture and what a network says of it.

    Attributes:
        uri: the picture as a data URI; empty if it is not there any more.
        predicted: the class.
        confidence: of the class, in %.
        true: the true class, where it is another one.
        heat_map: the same with what the network looked at, as a data URI; empty if there is none.
    """

    uri: str
    predicted: str
    confidence: str
    true: str = ""
    heat_map: str = ""


@dataclass(frozen=True)
class Gallery:
    """Thumbnails with a heading above them."""

    caption: str
    thumbnails: tuple[Thumbnail, ...]

    @property
    def missing(self) -> int:
        """How many pictures are not there any more."""
        return sum(not one.uri for one in self.thumbnails)


@dataclass(frozen=True)
class Section:
    """One measure.

    Attributes:
        title: its heading.
        about: the question that it answers, in a few words.
        explain: what is shown and how to read it.
        findings: what the numbers say, a sentence or two each.
        parts: tables, figures and galleries in their order.
        notes: the protocol, each ``"term: what it is"``.
        folded: whether a page shows it only when asked.
    """

    title: str
    about: str
    explain: str
    findings: tuple[str, ...]
    parts: tuple[Sheet | Figure | Gallery, ...]
    notes: tuple[str, ...]
    folded: bool = True

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The figures among the parts."""
        return tuple(part for part in self.parts if isinstance(part, Figure))


def write_pages(
    name: str,
    out: Path,
    figures: Sequence[Figure],
    context: Mapping[str, Any],
    *,
    methods: Sequence[str],
    former: Collection[str],
    file: str | None = None,
) -> Path:
    """Write `figures/*.svg`, `<file>.md` and, last, `<file>.html`; each file is replaced whole or not at all.

    Args:
        out: where; made if it is missing.
        former: patterns of the figures that an earlier page may have left; those that this one has not go.
        file: name of the page; None: that of the templates.
    """
    folder = make_folder(out / "figures")
    for one in (out, folder):
        remove_leftovers(one)
    current = {f"{figure.name}.svg" for figure in figures}
    for stale in [path for pattern in former for path in folder.glob(f"{pattern}.svg") if path.name not in current]:
        stale.unlink()
    inline = {}
    for figure in figures:
        svgs = [panel_svg(panel) for panel in figure.panels]
        grid = grid_svg(figure.panels, svgs, columns=figure.columns, legend=methods if figure.legend else ())
        write_atomically(folder / f"{figure.name}.svg", grid)
        inline[figure.name] = [(panel.alt, Markup(themed(svg))) for panel, svg in zip(figure.panels, svgs, strict=True)]
    text = render(f"{name}.md", **context, figures=inline)
    file = file or name
    write_atomically(out / f"{file}.md", text.encode())
    page = render(f"{name}.html", **context, figures=inline, palette=PALETTE, titles=[])
    write_atomically(out / f"{file}.html", page.encode())
    return out / f"{file}.html"


def render(name: str, /, **context: Any) -> str:
    """Return the text of a template: ``report.html``, ``report.md``, ``diagram.svg`` ..."""
    return _environment().get_template(f"{name}.j2").render(context)


@cache
def _environment() -> Environment:
    """One for all pages: it compiles each template once."""
    environment = Environment(
        loader=PackageLoader("selfdistill.report", "templates"),
        autoescape=lambda name: name is not None and name.endswith((".html.j2", ".svg.j2")),
        finalize=lambda value: printable(value, "\n") if type(value) is str else value,  # what is Markup is ours
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["anchor"] = lambda title: re.sub(r"\W+", "-", title).lower()
    environment.filters["md"] = escape_markdown
    environment.filters["md_table"] = markdown
    return environment
