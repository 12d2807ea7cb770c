"""From the text of a method, as it stands in recipes, records and on the command line, to the method."""

import ast
import inspect
from collections.abc import Mapping

from selfdistill import methods
from selfdistill.method import Method
from selfdistill.text import quote, suggest

_LONGEST = 1000  # characters: what an error may repeat
_LARGEST = 2**53  # of a whole number: what a float holds


def parse_method(text: str) -> Method:
    """Return the method that ``text`` describes; the inverse of ``repr``.

    The text is read with :mod:`ast`, never evaluated: calls of the methods with literal arguments, joined by ``+``.

    Args:
        text: as it stands in a recipe, a record or on the command line.

    Raises:
        ValueError: not such an expression; an unknown method or argument (the nearest right name is given); a value
            outside its range.

    Example:
        >>> parse_method("SDDropout(weight=0.1) + LabelSmoothing()")
        LabelSmoothing() + SDDropout(weight=0.1)
    """
    if len(text) > _LONGEST:
        raise ValueError(f"{quote(text)} is not a valid method: it has more than {_LONGEST:,} characters")
    kinds = {name: getattr(methods, name) for name in dir(methods)}
    try:
        return _method(ast.parse(text.strip(), mode="eval").body, text, kinds)
    except (SyntaxError, RecursionError, MemoryError) as error:  # the last two: nested too deeply for the parser
        raise ValueError(f"{quote(text)} is not a valid method; write for example 'SDDropout(weight=0.1)'") from error


def _method(node: ast.expr, text: str, kinds: Mapping[str, type[Method]]) -> Method:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _method(node.left, text, kinds) + _method(node.right, text, kinds)
    if isinstance(node, ast.Name):
        calls = [f"{name}()" for name in kinds]
        raise ValueError(f"{quote(text)} is not a valid method; {suggest(f'{node.id}()', calls)}")
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError(f"{quote(text)} is not a valid method; write for example 'SDDropout(weight=0.1)'")
    name = node.func.id
    if name not in kinds:
        raise ValueError(f"unknown method {quote(name)}; {suggest(name, kinds)}")
    return _call(kinds[name], node, text)


def _call(kind: type[Method], node: ast.Call, text: str) -> Method:
    accepted = inspect.signature(kind).parameters
    for keyword in node.keywords:
        if keyword.arg not in accepted:
            name = keyword.arg or "**"
            otherwise = None if accepted else "it takes none"
            raise ValueError(f"{kind.__name__} has no argument {quote(name)}; {suggest(name, accepted, otherwise)}")
    if len({keyword.arg for keyword in node.keywords}) < len(node.keywords):
        raise ValueError(f"{quote(text)}: an argument is given twice")
    try:
        positional = [ast.literal_eval(argument) for argument in node.args]
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{quote(text)}: the arguments of a method are plain numbers, strings or None") from error
    for value in (*positional, *named.values()):
        if not isinstance(value, int | float | str | None) or (isinstance(value, int) and abs(value) > _LARGEST):
            raise ValueError(f"{quote(text)}: {quote(value)} is not a value that an argument can have")
    try:
        return kind(*positional, **named)
    except TypeError as error:
        raise ValueError(f"{quote(text)}: an argument has a wrong type, or there are too many") from error
