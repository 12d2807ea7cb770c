"""The methods, one file each, and the way back from a method's ``repr`` to the method."""

from selfdistill.method import Method
from selfdistill.methods.bake import BAKE
from selfdistill.methods.byot import BYOT
from selfdistill.methods.cross_entropy import CrossEntropy
from selfdistill.methods.cs_kd import CSKD
from selfdistill.methods.ddgsd import DDGSD
from selfdistill.methods.dlb import DLB
from selfdistill.methods.dml import DML
from selfdistill.methods.dropout import Dropout
from selfdistill.methods.label_smoothing import LabelSmoothing
from selfdistill.methods.parse import parse
from selfdistill.methods.ps_kd import PSKD
from selfdistill.methods.r_drop import RDrop
from selfdistill.methods.sd_dropout import SDDropout

__all__ = [
    "BAKE",
    "BYOT",
    "CSKD",
    "DDGSD",
    "DLB",
    "DML",
    "PSKD",
    "CrossEntropy",
    "Dropout",
    "LabelSmoothing",
    "RDrop",
    "SDDropout",
]


def parse_method(text: str) -> Method:
    """Return the method that ``text`` describes; the inverse of ``repr``.

    The text is read with :mod:`ast`, never evaluated: calls of these methods with literal arguments, joined by ``+``.

    Args:
        text: as it stands in a recipe, a record or on the command line.

    Raises:
        ValueError: not such an expression; an unknown method or argument (the nearest right name is given); a value
            outside its range.

    Example:
        >>> parse_method("SDDropout(weight=0.1) + LabelSmoothing()")
        LabelSmoothing() + SDDropout(weight=0.1)
    """
    return parse(text, {name: globals()[name] for name in __all__})
