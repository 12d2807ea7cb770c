"""A flat dataclass as a YAML file: checked types, the nearest right key, a comment on each line. No torch here."""

import re
import types
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

import yaml

from selfdistill.errors import ArgumentError, check_range
from selfdistill.text import quote, suggest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_DEEPEST = 4
NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class YamlConfig:
    """A recipe, a flat frozen dataclass, to YAML and back: its fields are the keys, its docstring the comments.

    Attributes:
        NON_SEMANTIC_FIELDS: fields that say where and how fast a run goes: they do not change what it computes.
    """

    NON_SEMANTIC_FIELDS: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a recipe from a YAML file.

        Raises:
            ValueError: an unknown key (the nearest right one is named), a wrong value, or not YAML at all.
            OSError: the file cannot be read.
        """
        path = Path(path)
        values = read(path, [field.name for field in fields(cls)])
        if missing := [one.name for one in fields(cls) if one.default is MISSING and one.name not in values]:
            raise ValueError(f"{path}: {', '.join(missing)} missing: it is not the config of a run")
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}".replace("`", "")) from None  # its keys are the names

    def to_yaml(self) -> str:
        """Return the recipe as YAML, one line a field with its comment."""
        return dump(self)

    def unused_fields(self) -> dict[str, str]:
        """Return the fields that another field makes meaningless, each with the reason."""
        return {}

    def differences(self, other: Self) -> list[str]:
        """Return ``"name (this there, that here)"`` for each field that makes the two different runs."""
        names = [field.name for field in fields(self) if field.name not in self.NON_SEMANTIC_FIELDS]
        return [
            f"{name} ({quote(getattr(other, name))} there, {quote(getattr(self, name))} here)"
            for name in names
            if getattr(self, name) != getattr(other, name)
        ]

    def convert_fields(self) -> None:
        """Convert numbers and lists to the fields' types; for ``__post_init__``."""
        kind: type = type(self)
        types_of = hints(kind)
        for field in fields(self):
            object.__setattr__(self, field.name, convert(field.name, getattr(self, field.name), types_of[field.name]))

    def check_ranges(self, **ranges: tuple[float, float]) -> None:
        """Refuse a field's number outside its range, from least to most; None is in each."""
        for name, (least, most) in ranges.items():
            check_range(name, getattr(self, name), least, most)

    def require(self, holds: bool, name: str, wanted: str) -> None:
        """Refuse a field's value unless a condition holds."""
        if not holds:
            raise ArgumentError(name, f"must be {wanted}, not {quote(getattr(self, name))}")


@cache  # of each recipe that is made
def hints(cls: type) -> dict[str, Any]:
    """Return the type of each field."""
    return get_type_hints(cls)


def convert(name: str, value: object, hint: Any) -> Any:
    """Return ``value`` as the field's type, or say what is wanted.

    Args:
        hint: bool, int, float, str, a ``Literal``, ``tuple[X, ...]``, or one of these ``| None``.

    Example:
        >>> convert("lr", "1e-4", float), convert("milestones", [0.5], tuple[float, ...])
        (0.0001, (0.5,))
    """
    try:
        return _convert(value, hint)
    except TypeError:
        empty = isinstance(value, str) and not value.strip()
        problem = "must not be empty" if empty else f"must be {wanted(hint)}, not {quote(value)}"
        raise ArgumentError(name, problem) from None


def _convert(value: object, hint: Any) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        inner = next(one for one in get_args(hint) if one is not type(None))
        return None if value is None else _convert(value, inner)
    if origin is Literal:
        if value in get_args(hint):
            return value
        raise TypeError
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError
        return tuple(_convert(item, get_args(hint)[0]) for item in value)
    if hint is float:
        return _number(value)
    wrong = isinstance(value, bool) if hint is int else hint is str and not str(value).strip()
    if wrong or not isinstance(value, hint):
        raise TypeError
    return value


def _number(value: object) -> float:
    # YAML 1.1 reads 1e-4 (no dot) as a text, so a text that spells a number is one.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise TypeError from None
    if number - number != 0:  # inf and nan
        raise TypeError
    return number


def wanted(hint: Any) -> str:
    """Return a field's type in words."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        inner = next(one for one in get_args(hint) if one is not type(None))
        return f"{wanted(inner)} or null"
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if origin is tuple:
        return f"a list of {'texts' if get_args(hint)[0] is str else 'numbers'}"
    return NAMES[hint]


class _FlatLoader(yaml.SafeLoader):
    """YAML without what a flat config cannot hold: deep nesting, aliases (they multiply), a key twice."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not read", problem_mark=self._mark())
        self.depth += 1
        if self.depth > _DEEPEST:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=self._mark())
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _mark(self) -> yaml.Mark:
        mark: yaml.Mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        return mark

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.MarkedYAMLError(problem=f"{quote(twice)} is given twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def read(path: Path, known: list[str]) -> dict[str, Any]:
    """Read a flat YAML mapping whose keys are all known.

    Raises:
        ValueError: it is not YAML, not a mapping, or has a key that is not known or given twice.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _FlatLoader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise ValueError(f"{path}: not a YAML file ({line}{str(error.problem)[:200]})") from None
    except (yaml.YAMLError, ValueError):
        raise ValueError(f"{path}: not a YAML file (bytes that are not UTF-8, or a value out of range)") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a recipe is lines of 'name: value', such as 'epochs: 200'")
    for key in values:
        if key not in known:
            raise ValueError(f"{path}: unknown key {quote(key)}; {suggest(str(key), known)}")
    return values


def dump(recipe: "DataclassInstance") -> str:
    """Return ``name: value  # comment`` for each field, the comments from the class's docstring."""
    docs = "\n".join(cls.__doc__ or "" for cls in type(recipe).__mro__)
    comments = dict(re.findall(r"^ {8}(\w+): (.+)$", docs, flags=re.MULTILINE))
    lines = []
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        plain = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, str) else value
        flow = yaml.safe_dump([plain], default_flow_style=True, width=float("inf"), allow_unicode=True).strip()[1:-1]
        text = f"{field.name}: {flow}"
        comment = comments.get(field.name)
        lines.append(f"{text}  # {comment}" if comment else text)
    return "\n".join(lines) + "\n"
