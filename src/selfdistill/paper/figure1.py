"""The page of the paper's Fig. 1: a diagram of each method that it trains."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from selfdistill.methods import parse_method
from selfdistill.paper.designs import DESIGNS, FIGURE1
from selfdistill.report.diagram import write_diagram
from selfdistill.report.pages import write_pages


def write_figure1(out: Path) -> Path:
    """Write ``figure1.html``, ``figure1.md`` and a picture per method; each file is replaced whole or not at all.

    Args:
        out: where; made if it is missing. The pictures are in ``out/figures``.

    Returns:
        The path of the HTML.

    Raises:
        OSError: the folder cannot be written.
    """
    (out / "figures").mkdir(parents=True, exist_ok=True)
    files = {
        name: write_diagram(parse_method(expression), out / "figures", f"{FIGURE1.name}-")
        for name, expression in DESIGNS.items()
    }
    context = {
        "title": f"Figure 1: {FIGURE1.title}",
        "name": FIGURE1.name,
        "diagrams": [(name, file.name, Markup(file.read_text())) for name, file in files.items()],
        "protocol": FIGURE1.protocol,
    }
    return write_pages("diagrams", out, (), context, methods=(), former=(), file=FIGURE1.name)
