"""How the figures look: a palette safe for colour-blind readers, and panels as SVG, alone or in a grid."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from selfdistill.text import printable

# Okabe and Ito (2008) and Tol (2021), darkened to 3:1 on white; the baseline is grey. Each comes with its
# twin for a dark page. The shapes say the same as the colours.
PALETTE = (
    ("#54606e", "#aeb9c7", "o"),
    ("#0072b2", "#5db5ec", "s"),
    ("#d55e00", "#ff9052", "D"),
    ("#008f68", "#3fd0a2", "^"),
    ("#a1458f", "#df97d0", "v"),
    ("#9c7410", "#e9bd4e", "P"),
    ("#2c9fc9", "#9bdcf6", "X"),
    ("#882255", "#e2749c", "h"),
)
INK, MUTED, GRID, CARD = "#1b2431", "#5d6978", "#dce2e9", "#fefefe"  # all different, so that a page can replace each
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", CARD: "--card"} | {
    light: f"--method-{i}" for i, (light, _, _) in enumerate(PALETTE)
}
_RC: Any = {
    "svg.fonttype": "none",  # text stays text: small, sharp, selectable and read aloud
    "svg.hashsalt": "selfdistill",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib and is wide, so that any other font fits too
    "font.size": 9,
    "text.parse_math": False,  # a dollar in a class name is a dollar
    "axes.unicode_minus": True,
    "path.simplify_threshold": 0.5,  # points: less than anybody sees, and half the file
}
_XMLNS = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def colour(index: int) -> str:
    """Colour of the method at this position; they repeat after eight."""
    return PALETTE[index % len(PALETTE)][0]


def marker(index: int) -> str:
    """Shape of the method at this position."""
    return PALETTE[(index + index // len(PALETTE)) % len(PALETTE)][2]


Draw = Callable[[FigureBase], None]


@dataclass(frozen=True)
class Panel:
    """One small figure: a file-safe name, what it shows in words, how to draw it, and its size in inches."""

    name: str
    alt: str
    draw: Draw
    width: float = 4.2
    height: float = 3.0


def panel_svg(panel: Panel) -> str:
    """One panel as an SVG element in the light colours, transparent; its identifiers start with the panel's name."""
    with mpl.rc_context(_RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # text stays text: the reader's fonts have it
        figure = Figure(figsize=(panel.width, panel.height), layout="constrained")
        panel.draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True)
    svg = re.sub(r".*?<svg[^>]*>", "", printable(buffer.getvalue(), "\n"), count=1, flags=re.DOTALL)
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)  # it holds the date
    svg = re.sub(r"font-family: [^;]*; ", "", svg)  # once, at the root
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    # The layout's last digits vary from run to run, and matplotlib's identifiers are hashes of them.
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"\d+\.\d{3,}", _rounded, tag[0]), svg)
    hashed = re.compile(r'(?<=[#"])([mp])[0-9a-f]{10}(?=[")])')
    order = {name: i for i, name in enumerate(dict.fromkeys(match.group() for match in hashed.finditer(svg)))}
    svg = hashed.sub(lambda match: f"{match[1]}{order[match[0]]}", svg)
    svg = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{panel.name}-", svg)
    size = f"{72 * panel.width:g} {72 * panel.height:g}"
    return f'<svg {_XMLNS} font-family="{_FONTS}" viewBox="0 0 {size}">{svg}'


def themed(svg: str) -> str:
    """A panel for a page: its colours follow the page's variables, light or dark."""
    for hexadecimal, variable in _VARIABLES.items():
        svg = svg.replace(hexadecimal, f"var({variable}, {hexadecimal})")
    return svg


def grid_svg(panels: Sequence[Panel], svgs: Sequence[str], *, columns: int, legend: Sequence[str] = ()) -> bytes:
    """Panels of one size side by side on white, a legend of these methods above: a file that stands alone."""
    columns = min(columns, len(panels))
    width, height = 72 * panels[0].width, 72 * panels[0].height
    placed = [(svg, width * (i % columns), height * (i // columns)) for i, svg in enumerate(svgs)]
    total = height * -(-len(svgs) // columns)
    if legend:
        key = _legend(legend, panels[0].width * columns)
        placed = [(svg, x, y + 72 * key.height) for svg, x, y in placed] + [(panel_svg(key), 0, 0)]
        total += 72 * key.height
    parts = [
        re.sub(r'viewBox="0 0 (\S+) (\S+)"', rf'x="{x:g}" y="{y:g}" width="\1" height="\2" \g<0>', svg, count=1)
        for svg, x, y in placed
    ]
    size = f'width="{width * columns:g}pt" height="{total:g}pt" viewBox="0 0 {width * columns:g} {total:g}"'
    white = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return f"<svg {_XMLNS} {size}>\n{white}\n{''.join(parts)}</svg>\n".encode()


def _legend(methods: Sequence[str], width: float) -> Panel:
    per_row = max(1, int(width * 14) // (max(map(len, methods)) + 6))
    handles = [
        Line2D([], [], color=colour(i), marker=marker(i), linestyle="none", markersize=6, label=method)
        for i, method in enumerate(methods)
    ]

    def draw(figure: FigureBase) -> None:
        figure.legend(handles=handles, loc="center left", ncols=per_row, frameon=False, labelcolor=INK)

    return Panel("legend", "", draw, width, 0.25 * -(-len(methods) // per_row) + 0.1)


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def plain(axes: Axes, *, grid: str = "y") -> None:
    """No box, a light grid behind the data, muted ticks."""
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    axes.tick_params(which="both", colors=MUTED, labelcolor=MUTED, length=0, pad=4, labelsize=8.5)
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(GRID)


def heading(axes: Axes, text: str, index: int | None = None) -> None:
    """A title on the left, in a method's colour if one is named."""
    shade = INK if index is None else colour(index)
    title = axes.set_title(text, loc="left", fontsize=9.5, fontweight="bold", color=shade, pad=8)
    # A title wider than the axes must not push them: only its height counts.
    title.set_in_layout(False)


_ROWS = {"left": 0.16, "right": 0.28, "top": 0.36, "bottom": 0.28}  # inches around rows: alike, so that panels align


def rows(axes: Axes, names: Sequence[str], *, zero: bool = False) -> None:
    """Name each row of a panel above itself, so that a long name costs no width; draw zero beside the names alone."""
    for row, name in enumerate(names):
        backing = {"facecolor": CARD, "edgecolor": "none", "pad": 1}
        place = axes.get_yaxis_transform()
        text = short(name, 40)
        axes.text(0, row - 0.24, text, transform=place, color=INK, fontsize=8.5, va="bottom", zorder=4, bbox=backing)
        if zero:
            axes.plot([0, 0], [row - 0.15, row + 0.27], color=MUTED, linewidth=1.2, zorder=1)
    axes.set(ylim=(len(names) - 0.6, -0.85), yticks=[])
    axes.xaxis.set_major_locator(MaxNLocator(4))
    plain(axes, grid="x")
    figure = axes.get_figure(root=True)
    assert figure is not None
    width, height = figure.get_size_inches()
    figure.set_layout_engine(None)
    figure.subplots_adjust(
        left=_ROWS["left"] / width,
        right=1 - _ROWS["right"] / width,
        top=1 - _ROWS["top"] / height,
        bottom=_ROWS["bottom"] / height,
    )


def short(name: str, most: int) -> str:
    """A name of at most so many characters.

    Example:
        >>> short("SDDropout()", 8)
        'SDDropo…'
    """
    return name if len(name) <= most else name[: most - 1] + "…"
