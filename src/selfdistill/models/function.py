"""A model of one's own: a function without arguments that builds it, by its name ``package.module:function``."""

import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from selfdistill.errors import ArgumentError
from selfdistill.own_code import raised_in_own_code
from selfdistill.text import first_line, quote, suggest

PACKAGES = ("torchvision", "timm")
"""What stands before the colon in a model's name of these packages; whatever else is a module of the user's."""


class ModelFunction(str):
    """The name of a function that builds a model, with the function itself, which then need not be imported.

    It is ``package.module:function`` where that leads to the function. A lambda, a partial or a function inside another
    has no such name: a hash of the model's layers stands behind it, so that another model is not taken for it.

    Args:
        function: takes no arguments and returns an ``nn.Module``.

    Example:
        >>> ModelFunction(lambda: nn.Linear(2, 2)).partition("#")[0]
        'selfdistill.models.function:<lambda>'
    """

    function: Callable[[], nn.Module]

    def __new__(cls, function: Callable[[], nn.Module]) -> Self:  # noqa: D102 - the class docstring documents it
        qualified = getattr(function, "__qualname__", type(function).__qualname__)
        name = f"{getattr(function, '__module__', '')}:{qualified}"
        if _found(name) is not function:
            with torch.random.fork_rng(devices=[]):
                model, again = call_builder(function, name), call_builder(function, name)
            if model is again:
                raise ArgumentError("model", "must build a new model at each call, and returns the same one twice")
            layers: list[Any] = [(key, type(layer).__name__) for key, layer in model.named_modules()]
            layers += [(key, tuple(value.shape)) for key, value in model.state_dict().items()]
            name += f"#{hashlib.sha256(repr(layers).encode()).hexdigest()[:8]}"
        self = super().__new__(cls, name)
        self.function = function
        return self

    def __getnewargs__(self) -> tuple[Any]:
        return (self.function,)

    @property
    def is_importable(self) -> bool:
        """Whether the name alone leads to the function, also in another process."""
        return "#" not in self and not self.startswith("__main__:")


def is_function(name: str | None) -> bool:
    """Whether a model's name is that of a function, and not of one of our networks or of a package's.

    Example:
        >>> [is_function(name) for name in ("resnet18_cifar", "timm:resnet18", "my.networks:small", None)]
        [False, False, True, False]
    """
    package, colon, _ = (name or "").partition(":")
    return bool(colon) and package not in PACKAGES


def build_from_function(name: str) -> nn.Module:
    """Build a model by ``package.module:function``; the current folder is searched after all that is installed.

    Raises:
        ArgumentError: there is no such module or function, or it does not return an ``nn.Module`` without arguments.

    Example:
        >>> build_from_function("my_networks:small")
        Traceback (most recent call last):
        selfdistill.errors.ArgumentError: `model` is 'my_networks:small', but module 'my_networks' was not found
    """
    return call_builder(name.function if isinstance(name, ModelFunction) else _imported(name), name)


def call_builder(function: Any, name: str) -> nn.Module:
    """Return what a function without arguments builds."""
    if isinstance(function, nn.Module) or not callable(function):
        wanted = "pass a function that builds one, for each run starts with new weights"
        raise ArgumentError("model", f"is of type {type(function).__name__}: {wanted}")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise ArgumentError("model", f"is {quote(name)}, which must need no arguments ({error})") from None
    except ValueError:  # some have no signature
        pass
    model = function()
    if not isinstance(model, nn.Module):
        problem = f"is {quote(name)}, which must return an nn.Module, not a {type(model).__name__}"
        raise ArgumentError("model", problem)
    return model


def _imported(name: str) -> Any:
    module, _, path = name.partition(":")
    if "#" in name or module == "__main__":
        problem = "a function of a script or notebook, or without a name, that other programs cannot find"
        raise ArgumentError(
            "model",
            f"is {quote(name)}, {problem}: put it into a module, or load the run with selfdistill.load(run, it)",
        )
    package = module.partition(".")[0]
    if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", name) or package in sys.stdlib_module_names:
        raise ArgumentError("model", f"must be 'package.module:function', not {quote(name)}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ArgumentError("model", f"is {quote(name)}, whose module needs {error.name}") from error
        raise ArgumentError("model", f"is {quote(name)}, but module {error.name!r} was not found") from None
    except (Exception, SystemExit) as error:  # whatever the module does, such as reading the words of a command line
        reason = raised_in_own_code(error) or f"{type(error).__name__}: {first_line(error)}"
        raise ArgumentError("model", f"is {quote(name)}, whose module fails: {reason}") from error
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            public = [known for known in dir(found) if not known.startswith("_")]
            raise ArgumentError(
                "model", f"is {quote(name)}, which has no {quote(attribute)}; {suggest(attribute, public)}"
            )
        found = getattr(found, attribute)
    return found


def _found(name: str) -> Any:
    """Return what a name leads to in what is imported already; None where it leads nowhere."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for attribute in path.split("."):
        found = getattr(found, attribute, None)
    return found
