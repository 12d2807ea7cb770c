"""A function's signature as command-line options: its types say what fits, its docstring explains. No torch here."""

from selfdistill.options.option import Command, Option, nearest, options_of, summary_of, value_of
from selfdistill.options.parser import help_of, parse

__all__ = ["Command", "Option", "help_of", "nearest", "options_of", "parse", "summary_of", "value_of"]
