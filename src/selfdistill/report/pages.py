"""A page as HTML that stands alone, as Markdown, and its figures as files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from selfdistill.files import make_folder, remove_leftovers, write_atomically
from selfdistill.report.section import Figure
from selfdistill.report.style import PALETTE, grid_svg, panel_svg, themed
from selfdistill.report.tables import escape_markdown, markdown


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
        name: of its templates.
        out: where; made if it is missing.
        figures: what it shows.
        context: what its templates read beside them.
        methods: the names in a figure's legend.
        former: patterns of the figures that an earlier page may have left; those that this one has not go.
        file: name of the page; None: that of the templates.

    Returns:
        The path of the HTML.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = make_folder(out / "figures")
    for one in (out, folder):
        remove_leftovers(one)
    kept = {f"{figure.name}.svg" for figure in figures}
    for stale in [path for pattern in former for path in folder.glob(f"{pattern}.svg") if path.name not in kept]:
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
    page = render(f"{name}.html", **context, figures=inline, palette=PALETTE)
    write_atomically(out / f"{file}.html", page.encode())
    return out / f"{file}.html"


def render(name: str, /, **context: Any) -> str:
    """Return the text of a template: ``report.html``, ``report.md``, ``diagram.svg`` ..."""
    environment = Environment(
        loader=PackageLoader("selfdistill.report", "templates"),
        autoescape=lambda name: name is not None and name.endswith((".html.j2", ".svg.j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    environment.filters["md_table"] = markdown
    return environment.get_template(f"{name}.j2").render(context)
