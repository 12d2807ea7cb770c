"""Diagrams as files: one for each method that there is, and one of a sum."""

from __future__ import annotations

from pathlib import Path

from selfdistill.data.synthetic import example_methods
from selfdistill.method import Method
from selfdistill.methods import parse_method
from selfdistill.records import write_atomically
from selfdistill.report.diagram.draw import diagram

SUM = "BYOT() + SDDropout(weight=0.1)"
"""A sum of the paper's Table 1."""


def write_diagrams(folder: Path) -> list[Path]:
    """Write a diagram of each method that selfdistill exports, and of a sum of two.

    Args:
        folder: where; made if it is missing.

    Returns:
        The files, called as the methods' modules are: ``sd_dropout.svg``; of the sum ``byot-sd_dropout.svg``.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    methods = [*example_methods().values(), parse_method(SUM)]
    return [write_diagram(method, folder / f"{file_name(method)}.svg") for method in methods]


def write_diagram(method: Method, file: Path) -> Path:
    """Write the diagram of a method, whole or not at all, and return where."""
    write_atomically(file, diagram(method).encode())
    return file


def file_name(method: Method) -> str:
    """Return what the diagram of a method is called, by the modules of its parts.

    Example:
        >>> from selfdistill import CSKD, SDDropout
        >>> file_name(SDDropout()), file_name(SDDropout() + CSKD())
        ('sd_dropout', 'cs_kd-sd_dropout')
    """
    return "-".join(type(part).__module__.rpartition(".")[2] for part in method.parts)
