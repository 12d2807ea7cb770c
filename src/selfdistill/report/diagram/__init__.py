"""Fig. 1: a diagram of any method, drawn from what it needs and does.

method --(one step, watched)--> Observation --> rows --> lanes --> layout --> SVG
"""

from selfdistill.report.diagram.draw import diagram
from selfdistill.report.diagram.files import write_diagrams
from selfdistill.report.diagram.page import write_figure1

__all__ = ["diagram", "write_diagrams", "write_figure1"]
