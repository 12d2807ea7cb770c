"""Training: a recipe, the loop on Lightning Fabric, exact resume, the run folder.

Names are resolved on first use, so that reading a recipe (and ``selfdistill --help``) needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfdistill.train.budget import Timing, epochs_for_budget, estimate, measure_step_seconds, parse_duration
    from selfdistill.train.export import LoadedModel, load, load_run
    from selfdistill.train.meters import NonFiniteLossError
    from selfdistill.train.progress import Update, progress_bar
    from selfdistill.train.recipe import Recipe
    from selfdistill.train.run import train
    from selfdistill.train.signals import Interrupted

_WHERE = {
    "Interrupted": "signals",
    "LoadedModel": "export",
    "NonFiniteLossError": "meters",
    "Recipe": "recipe",
    "Timing": "budget",
    "Update": "progress",
    "epochs_for_budget": "budget",
    "estimate": "budget",
    "load": "export",
    "load_run": "export",
    "measure_step_seconds": "budget",
    "parse_duration": "budget",
    "progress_bar": "progress",
    "train": "run",
}

__all__ = [
    "Interrupted",
    "LoadedModel",
    "NonFiniteLossError",
    "Recipe",
    "Timing",
    "Update",
    "epochs_for_budget",
    "estimate",
    "load",
    "load_run",
    "measure_step_seconds",
    "parse_duration",
    "progress_bar",
    "train",
]


def __getattr__(name: str) -> object:
    """Import the module that holds a public name when it is first used."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
