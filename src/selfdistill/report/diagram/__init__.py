"""A diagram of any method: method --(a step, watched)--> Observation --> columns --> Layout --> SVG."""

from selfdistill.report.diagram.draw import draw_diagram, write_diagram

__all__ = ["draw_diagram", "write_diagram"]
