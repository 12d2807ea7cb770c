"""One line for each mistake: cyclopts' errors in plain words, the library's errors with options for arguments."""

import re
import shlex
from collections.abc import Sequence

from cyclopts import CoercionError, CycloptsError, MissingArgumentError, UnusedCliTokensError
from cyclopts.exceptions import ConsumeMultipleError, RepeatArgumentError, UnknownCommandError, UnknownOptionError

from selfdistill.config.yaml_config import wanted
from selfdistill.errors import ArgumentError
from selfdistill.text import nearest, quote, suggest


def explain_words(error: CycloptsError) -> str:
    """Return what is wrong with the words that were typed."""
    from selfdistill.cli.app import COMMANDS

    match error:
        case UnknownCommandError():
            word = (error.unused_tokens or [""])[0]
            if word.startswith("-"):
                return f"the command comes first, then {word}: selfdistill {'|'.join(COMMANDS)} [OPTIONS]"
            return f"unknown command {quote(word)}; {suggest(word, COMMANDS)}"
        case UnknownOptionError() | UnusedCliTokensError():
            return _explain_unknown(error)
        case ConsumeMultipleError() | MissingArgumentError() if error.keyword:
            return f"{error.keyword} needs a value"
        case MissingArgumentError(argument=argument) if argument is not None:
            command = " ".join(error.command_chain or ())
            return f"{argument.name} is missing: see selfdistill {command} --help"
        case RepeatArgumentError():
            return f"{error.token.keyword} is given twice"
        case CoercionError(argument=argument) if argument is not None:
            token, cause = error.token, error.__cause__
            name = token.keyword if token is not None and token.keyword else argument.name
            if isinstance(cause, ValueError):  # of a converter of ours
                return f"{name} {cause.problem if isinstance(cause, ArgumentError) else cause}"
            return f"{name} must be {wanted(error.target_type)}, not {quote(token.value if token is not None else '')}"
    text = str(error)
    return text[:1].lower() + text[1:]


def _explain_unknown(error: UnknownOptionError | UnusedCliTokensError) -> str:
    options = _options(error.command_chain or ())
    if isinstance(error, UnusedCliTokensError):
        words = shlex.join(error.unused_tokens or ())
        is_data = "data" in options and len(error.unused_tokens or ()) == 1
        return f"unexpected words: {words}{f'; did you mean --data {words}?' if is_data else ''}"
    word = (error.token.keyword or error.token.value).partition("=")[0]
    near = nearest(word, options.values(), cutoff=0.6)
    remedy = (
        f"see selfdistill {' '.join(error.command_chain or ())} --help" if near is None else f"did you mean {near}?"
    )
    return f"unknown option {word}; {remedy}"


def spell_options(message: str, words: Sequence[str]) -> str:
    """Return a message of the library with the command's options in the place of arguments in backticks.

    Args:
        message: as in "`batch_size` must be at least 1" or "pass `skip_unreadable=True`".
        words: what was typed; the first is the command. A message that advises to train again means the options of
            `selfdistill train` there.

    Example:
        >>> spell_options("`batch_size` must be below `lr`; pass `skip_unreadable=True` to `zip`", ["train"])
        '--batch-size must be below --lr; pass --skip-unreadable to `zip`'
        >>> spell_options("head='x' is not a submodule; pass head=, the dotted name", ["train"])
        "--head 'x' is not a submodule; pass --head, the dotted name"
    """
    own, of_training = _options(words), message.find("train again with")

    def spell(found: re.Match[str]) -> str:
        name, value = found[1] or found[3], (found[2] or "").strip("'\"")
        options = _options(["train"]) if own and 0 <= of_training < found.start() else own
        if name not in options:
            return found[0]
        if found[3] and message[found.end()] != ",":  # of the core: head='fc'
            return f"{options[name]} "
        return f"{options[name]} {value}" if value not in ("", "True") else options[name]

    return re.sub(r"`(\w+)(?:=([^`]+))?`|\b(\w+)=(?=[',])", spell, message)


def _options(words: Sequence[str]) -> dict[str, str]:
    """Return what each argument of the command is called on the command line: ``{"batch_size": "--batch-size"}``."""
    from selfdistill.cli.app import COMMANDS, app

    if not words or words[0] not in COMMANDS:
        return {}
    return {argument.field_info.name: argument.name for argument in app[words[0]].assemble_argument_collection()}
