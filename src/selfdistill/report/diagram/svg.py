"""SVG elements of a diagram, and its colours on a light and on a dark page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape

from selfdistill.report.style import CARD, GRID, INK, MUTED, PALETTE

Point = tuple[float, float]

_PARTS = re.compile(r"((?:[^_^]|[_^](?!\{))+)|([_^])\{([^}]*)\}")
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_GREY, _BLUE, _RED, _GREEN, _PURPLE, _GOLD = (shade[:2] for shade in PALETTE[:6])
_COLOURS = {
    "ink": (INK, "#e6ebf1"),
    "muted": (MUTED, "#9aa7b6"),
    "line": (GRID, "#323c49"),
    "card": (CARD, "#1a2029"),
    "flow": _GREY,
    "net": _BLUE,
    "term": _RED,
    "mask": _GREEN,
    "peer": _PURPLE,
    "memory": _GOLD,
}


def _variables(shade: int) -> str:
    return " ".join(f"--d-{name}: {pair[shade]};" for name, pair in _COLOURS.items())


# The page's own colours would do inside a page, but a file in an <img> sees none: it brings both sets, and a card.
STYLE = f"""
.diagram {{ {_variables(0)} font-family: {_FONTS}; }}
@media (prefers-color-scheme: dark) {{ .diagram {{ {_variables(1)} }} }}
.diagram text {{ fill: var(--d-ink); }}
.diagram .muted {{ fill: var(--d-muted); }}
.diagram .card {{ fill: var(--d-card); stroke: var(--d-line); }}
.diagram .halo {{ fill: none; stroke: var(--d-card); stroke-width: 5; }}
.diagram .box {{ fill: var(--d-card); stroke-width: 1.4; }}
.diagram .tint {{ fill-opacity: .13; stroke-width: 1.4; }}
.diagram .wire {{ fill: none; stroke-width: 1.5; stroke-linejoin: round; }}
.diagram .dashed {{ stroke-dasharray: 4 3; }}
""" + "\n".join(
    f".diagram .s-{name} {{ stroke: var(--d-{name}); }} .diagram .f-{name} {{ fill: var(--d-{name}); }}"
    for name in _COLOURS
)


def number(value: float) -> str:
    """A coordinate to a tenth."""
    return f"{value:.1f}".rstrip("0").rstrip(".")


def box(x: float, y: float, width: float, height: float, kind: str, *, radius: float = 6) -> str:
    """A rectangle; ``kind`` is its class."""
    place = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
    return f'<rect class="{kind}" {place} rx="{number(radius)}"/>'


def circle(x: float, y: float, radius: float, kind: str) -> str:
    """A circle."""
    return f'<circle class="{kind}" cx="{number(x)}" cy="{number(y)}" r="{number(radius)}"/>'


def text(x: float, y: float, content: str, *, size: float = 12, anchor: str = "middle", kind: str = "") -> str:
    """Text on a baseline; ``z_{1}`` lowers what is in the braces, ``z^{u}`` raises it."""
    spans, back = "", 0.0
    for part, script, inner in _PARTS.findall(content):
        if part:
            spans += escape(part) if not back else f'<tspan dy="{number(back)}">{escape(part)}</tspan>'
            back = 0.0
        else:
            shift = 3.5 if script == "_" else -5.0
            spans += f'<tspan dy="{number(shift + back)}" font-size="{number(0.72 * size)}">{escape(inner)}</tspan>'
            back = -shift
    named = f' class="{kind}"' if kind else ""
    place = f'x="{number(x)}" y="{number(y)}" font-size="{number(size)}" text-anchor="{anchor}"'
    return f"<text{named} {place}>{spans}</text>"


def wide(content: str, size: float) -> float:
    """A width that a text does not exceed in any of the fonts."""
    return sum(len(part) + 0.72 * len(inner) for part, _, inner in _PARTS.findall(content)) * 0.6 * size


def wire(
    points: Sequence[Point],
    shade: str,
    *,
    dashed: bool = False,
    start: bool = False,
    end: bool = False,
) -> str:
    """A line through points, with rounded corners and, where asked for, arrowheads."""
    heads = "".join(_head(points[i], points[j], shade) for i, j, there in ((0, 1, start), (-1, -2, end)) if there)
    kind = f"wire s-{shade} dashed" if dashed else f"wire s-{shade}"
    return f'<path class="{kind}" d="{_path(points)}"/>{heads}'


def halo(points: Sequence[Point]) -> str:
    """What lies below a line that runs over others, so that a crossing is no junction."""
    return f'<path class="halo" d="{_path(points)}"/>'


def _path(points: Sequence[Point], radius: float = 5) -> str:
    steps = [f"M{number(points[0][0])} {number(points[0][1])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        into, out = _towards(corner, before, radius), _towards(corner, after, radius)
        steps.append(f"L{_pair(into)}Q{_pair(corner)} {_pair(out)}")
    return "".join([*steps, f"L{_pair(points[-1])}"])


def _pair(point: Point) -> str:
    return f"{number(point[0])} {number(point[1])}"


def _towards(start: Point, end: Point, distance: float) -> Point:
    across, down = end[0] - start[0], end[1] - start[1]
    length = abs(across) + abs(down)  # along an axis
    share = 0.0 if length == 0 else min(distance, length / 2) / length
    return start[0] + share * across, start[1] + share * down


def _head(tip: Point, from_: Point, shade: str) -> str:
    back = _towards(tip, from_, 7)
    if abs(tip[1] - from_[1]) < 0.01:
        corners = ((back[0], tip[1] - 3.6), (back[0], tip[1] + 3.6))
    else:
        corners = ((tip[0] - 3.6, back[1]), (tip[0] + 3.6, back[1]))
    return f'<polygon class="f-{shade}" points="{" ".join(map(_pair, (tip, *corners)))}"/>'
