"""The methods, one file each, and the way back from a method's ``repr`` to the method.

``__init__.pyi`` lists them: type checkers read it, and so does this module, which imports a method, and torch with it,
when it is first used.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

_MODULE_OF = {
    name.name: node.module
    for node in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom) and node.module is not None
    for name in node.names
}

__all__ = sorted(name for name in _MODULE_OF if name != "parse_method")


def __getattr__(name: str) -> Any:
    """Import a method when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
