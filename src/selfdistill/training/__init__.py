"""Training: the loop on Lightning Fabric, exact resume, the run folder.

Names are resolved on first use, so that ``selfdistill --help`` needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfdistill.training.export import LoadedModel, load, load_run
    from selfdistill.training.meters import NonFiniteLossError
    from selfdistill.training.run import train
    from selfdistill.training.signals import Interrupted

_WHERE = {
    "Interrupted": "signals",
    "LoadedModel": "export",
    "NonFiniteLossError": "meters",
    "load": "export",
    "load_run": "export",
    "train": "run",
}

__all__ = [
    "Interrupted",
    "LoadedModel",
    "NonFiniteLossError",
    "load",
    "load_run",
    "train",
]


def __getattr__(name: str) -> object:
    """Import the module that holds a public name when it is first used."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
