"""The notebooks of ``examples/notebooks``, programs in the percent format, as .ipynb files and as pages of the site."""

import json
import re
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1] / "examples" / "notebooks"


def cells(source: str) -> list[tuple[str, str]]:
    """Return ("markdown" or "code", text) of each cell of a program in the percent format.

    Example:
        >>> cells("# %% [markdown]\n# # Title\n\n# %%\nx = 1\n")
        [('markdown', '# Title'), ('code', 'x = 1')]
    """
    found = []
    for marks, text in re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n?)*)", source, re.MULTILINE):
        if "[markdown]" in marks:
            found.append(("markdown", re.sub(r"^# ?", "", text, flags=re.MULTILINE).strip()))
        else:
            found.append(("code", text.strip()))
    return found


def to_ipynb(source: str) -> str:
    """Return a notebook of Jupyter's format 4.5, without outputs."""
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": [
            {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
            | ({"execution_count": None, "outputs": []} if kind == "code" else {})
            for number, (kind, text) in enumerate(cells(source))
        ],
        "metadata": {"kernelspec": python, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def to_page(name: str, source: str) -> str:
    """Return a page with the notebook's text and code, and the file to download below its title."""
    title, *texts = (text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells(source))
    heading, _, rest = title.partition("\n")
    texts = [re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", text) for text in texts]
    return "\n\n".join([heading, f"[Download the notebook]({name}.ipynb)", rest.strip(), *texts]) + "\n"
