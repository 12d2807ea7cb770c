"""Self-knowledge distillation for PyTorch: a better classifier from the one you already have."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from selfdistill import methods

if TYPE_CHECKING:
    from selfdistill.api import compare as compare
    from selfdistill.api import evaluate as evaluate
    from selfdistill.api import evaluate_logits as evaluate_logits
    from selfdistill.api import predict as predict
    from selfdistill.api import train as train
    from selfdistill.api import tune as tune
    from selfdistill.distiller import SelfDistiller as SelfDistiller
    from selfdistill.distiller import StepOutput as StepOutput
    from selfdistill.method import Batch as Batch
    from selfdistill.method import Method as Method
    from selfdistill.method import Needs as Needs
    from selfdistill.method import Outputs as Outputs
    from selfdistill.method import Step as Step
    from selfdistill.method import Term as Term
    from selfdistill.methods import *  # noqa: F403
    from selfdistill.training.export import load as load

__version__ = "0.2.0"

_HOMES = {
    "selfdistill.distiller": ("SelfDistiller", "StepOutput"),
    "selfdistill.method": ("Batch", "Method", "Needs", "Outputs", "Step", "Term"),
    "selfdistill.methods": (*dir(methods), "parse_method"),
    "selfdistill.training.export": ("load",),
    "selfdistill.api": ("compare", "evaluate", "evaluate_logits", "predict", "train", "tune"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_NEED_LAB = (*_HOMES["selfdistill.training.export"], *_HOMES["selfdistill.api"])

__all__ = sorted(name for name in _HOME_OF if name not in _NEED_LAB or find_spec("msgspec"))


def __getattr__(name: str) -> Any:
    """Resolve a public name when it is first used: the command line's help needs no torch."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'selfdistill' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOME_OF[name]), name)
    except ModuleNotFoundError as error:
        if name not in _NEED_LAB:
            raise
        reason = f'selfdistill.{name} needs {error.name}: pip install "selfdistill[lab]"'
        raise ModuleNotFoundError(reason, name=error.name) from None


def __dir__() -> list[str]:
    return __all__
