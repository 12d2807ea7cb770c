"""One file with what the command line says: every option, every help page, the sentence for every mistake.

It is compared word for word. After an intended change, write it anew and read the difference:

    SELFDISTILL_GOLDEN=write uv run pytest -n 0 tests/cli/test_golden.py
"""

import importlib
import os
from contextlib import suppress
from pathlib import Path

from selfdistill.cli.app import COMMANDS, app
from selfdistill.cli.options import default_text
from tests.cli.shared import Run
from tests.cli.test_words import test_a_mistake_in_the_words_is_named_in_one_line as mistakes

GOLDEN = Path(__file__).parent / "golden" / "command_line.txt"


def options() -> str:
    """One line for each option: its names and its default."""
    lines = []
    for name in COMMANDS:
        for argument in app[name].assemble_argument_collection():
            default = "" if argument.required else default_text(argument.field_info.default)
            lines.append(" ".join(filter(None, (name, *argument.names, f"[{default}]" if default else ""))))
    return "\n".join(lines) + "\n"


def test_the_command_line_says_what_the_golden_file_says(run: Run) -> None:
    with suppress(ModuleNotFoundError):  # once imported, it would word cyclopts' errors
        importlib.import_module("pydantic")
    pages = [[], *([name] for name in COMMANDS)]
    (parameters,) = [mark for mark in mistakes.pytestmark if mark.name == "parametrize"]
    parts = [
        options(),
        *(f"$ selfdistill {' '.join([*words, '--help'])}\n{run(*words, '--help').out}" for words in pages),
        *(f"$ selfdistill {words}\n{run(*words.split()).err}" for words, _ in parameters.args[1]),
    ]
    text = "\n".join(parts)
    if os.environ.get("SELFDISTILL_GOLDEN") == "write":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
