"""Self-knowledge distillation for PyTorch: a better classifier from the one you already have."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfdistill.distiller import SelfDistiller, StepOutput
    from selfdistill.method import Batch, Method, Needs, Outputs, Step, Term
    from selfdistill.methods import (
        BAKE,
        BYOT,
        CSKD,
        DDGSD,
        DLB,
        DML,
        PSKD,
        CrossEntropy,
        Dropout,
        LabelSmoothing,
        RDrop,
        SDDropout,
        parse_method,
    )
    from selfdistill.train.export import load

__version__ = "0.1.0"

_HOMES = {
    "selfdistill.distiller": ("SelfDistiller", "StepOutput"),
    "selfdistill.method": ("Batch", "Method", "Needs", "Outputs", "Step", "Term"),
    "selfdistill.methods": (
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
        "parse_method",
    ),
    "selfdistill.train.export": ("load",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BAKE",
    "BYOT",
    "CSKD",
    "DDGSD",
    "DLB",
    "DML",
    "PSKD",
    "Batch",
    "CrossEntropy",
    "Dropout",
    "LabelSmoothing",
    "Method",
    "Needs",
    "Outputs",
    "RDrop",
    "SDDropout",
    "SelfDistiller",
    "Step",
    "StepOutput",
    "Term",
    "load",
    "parse_method",
]


def __getattr__(name: str) -> Any:
    """Resolve a public name when it is first used: the command line's help needs no torch."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'selfdistill' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
