"""The page of the paper's Fig. 1: a diagram of each method that it trains."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from selfdistill.experiments.paper.designs import DESIGNS, FIGURE1
from selfdistill.methods import parse_method
from selfdistill.report.diagram.files import file_name, write_diagram
from selfdistill.report.pages import write_pages


def write_figure1(out: Path) -> Path:
    """Write ``figure1.html``, ``figure1.md`` and a picture a method; each file is replaced whole or not at all.

    Args:
        out: where; made if it is missing. The pictures are in ``out/figures``.

    Returns:
        The path of the HTML.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    shown = []
    for name, expression in DESIGNS.items():
        method = parse_method(expression)
        file = write_diagram(method, folder / f"{FIGURE1.name}-{file_name(method)}.svg")
        shown.append((name, file.name, Markup(file.read_text())))
    context = {
        "title": f"Figure 1: {FIGURE1.title}",
        "name": FIGURE1.name,
        "diagrams": shown,
        "protocol": FIGURE1.protocol,
    }
    return write_pages("diagrams", out, (), context, methods=(), former=(), file=FIGURE1.name)
