"""What commands share: groups of the help page, types of values, and a recipe as options."""

import functools
import inspect
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import docstring_parser
from cyclopts import Group, Parameter, Token

import selfdistill
from selfdistill.config import yaml_config
from selfdistill.config.yaml_config import YamlConfig
from selfdistill.errors import ArgumentError, blaming
from selfdistill.text import quote, suggest

RECIPES = Path(selfdistill.__file__).parent / "recipes"

KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY

ARGUMENTS = Group.create_ordered("Arguments")
OPTIONS = Group.create_ordered("Options")
DATA = Group.create_ordered("Data")
METHOD = Group.create_ordered("Method")
NETWORK = Group.create_ordered("Network")
OPTIMISATION = Group.create_ordered("Optimisation")
EVALUATION = Group.create_ordered("Evaluation")
MACHINE = Group.create_ordered("Machine")

_FIELDS = {
    DATA: "data data_root images image_size classes per_class test_per_class val_fraction train_on_val eval_split "
    "eval_images augment auto_augment erasing flip resize interpolation crop_pct crop_mode skip_unreadable max_pixels "
    "cache",
    METHOD: "method",
    NETWORK: "model width features head_layers weights head stages linear_probe freeze freeze_bn backbone norm "
    "trainable_layers rois",
    OPTIMISATION: "epochs batch_size accumulate optimizer lr backbone_lr layer_decay head_epochs momentum nesterov "
    "weight_decay schedule milestones gamma "
    "warmup_epochs clip mixup cutmix class_weights balanced_sampling ema keep patience seed",
    MACHINE: "precision gradient_checkpointing sync_batchnorm channels_last compile threads workers",
    OPTIONS: "keep_epochs eval_every log save_every",
}
_GROUP_OF = {name: group for group, names in _FIELDS.items() for name in names.split()}

Command = Callable[..., None]


def takes_recipe(kind: type[YamlConfig], *, without: Sequence[str] = ()) -> Callable[[Command], Command]:
    """Give a command with a parameter ``recipe`` an option for each field of the recipe, and ``--recipe FILE|NAME``.

    What is typed overrides the file. A field for which the command has a parameter of its own gets no second option;
    the file's value for it becomes the parameter's.

    Args:
        kind: the class of the recipe; its docstring explains the options.
        without: fields that the command does not use.
    """

    def decorate(command: Command) -> Command:
        own = {name: one for name, one in inspect.signature(command).parameters.items() if name != "recipe"}
        ignored = f" (ignored here: {', '.join(without)})" if without else ""
        help = f"YAML config, or the name of a shipped one; options on the command line override it{ignored}"
        file = Parameter(help=help, metavar="FILE|NAME")
        hints = get_type_hints(kind)
        helps = {one.arg_name: one.description or "" for one in docstring_parser.parse(kind.__doc__ or "").params}
        options = [
            _option(field, hints[field.name], helps[field.name])
            for field in fields(kind)
            if field.name not in own and field.name not in without and field.metadata.get("option", True)
        ]
        names = own.keys() | {option.name for option in options}

        @functools.wraps(command)
        def run(*, recipe: Path | None = None, **typed: Any) -> None:
            with blaming("recipe"):
                values = (_read(kind, _recipe_file(recipe), names) if recipe else {}) | typed
            for_command = {name: values.pop(name) for name in own if name in values}
            config = kind(**values)
            for name, why in config.unused_fields().items():
                if name in typed:
                    raise ArgumentError(name, f"would be ignored: {why}")
            command(recipe=config, **for_command)

        from_file = inspect.Parameter("recipe", KEYWORD_ONLY, default=None, annotation=Annotated[File | None, file])
        run.__signature__ = inspect.Signature([from_file, *own.values(), *options])  # type: ignore[attr-defined]
        run.__annotations__ = {name: one.annotation for name, one in own.items()}
        return run

    return decorate


def _recipe_file(recipe: Path) -> Path:
    """Return a file, or the shipped recipe of that name."""
    if recipe.is_file():
        return recipe
    shipped = {file.stem: file for file in sorted(RECIPES.glob("*.yaml"))}
    if str(recipe) not in shipped:
        problem = f"is {recipe}, which is neither a file nor a shipped recipe; {suggest(str(recipe), shipped)}"
        raise ArgumentError("recipe", problem)
    return shipped[str(recipe)]


def _read(kind: type[YamlConfig], path: Path, names: Collection[str]) -> dict[str, Any]:
    """Return what a file says of these names, checked."""
    whole = kind.from_yaml(path)
    written = yaml_config.read(path, [field.name for field in fields(kind)])
    return {name: getattr(whole, name) for name in written if name in names}


def _option(field: Field[Any], hint: Any, help: str) -> inspect.Parameter:
    switch = _without_none(hint) is bool
    parameter = Parameter(
        help=re.sub(r"`(\w+)`", lambda found: f"--{found[1].replace('_', '-')}", help),
        group=_GROUP_OF.get(field.name, OPTIONS),
        negative=None if switch else "",
        converter=None if switch else functools.partial(_as_typed, field.name, hint),
        consume_multiple=1 if get_origin(_without_none(hint)) is tuple else False,
    )
    return inspect.Parameter(field.name, KEYWORD_ONLY, default=field.default, annotation=Annotated[hint, parameter])


def _as_typed(name: str, hint: Any, _: type, tokens: Sequence[Token]) -> Any:
    """Return a value of the recipe's type; ``null`` is None and ``0.5,0.75`` a list."""
    texts = [token.value for token in tokens]
    if texts == ["null"] and type(None) in get_args(hint):
        return None
    kind = _without_none(hint)
    text = _text(kind, tokens)
    if get_origin(kind) is not tuple:
        return yaml_config.convert(name, _number(text, kind), hint)
    return yaml_config.convert(name, [_number(item, get_args(kind)[0]) for item in _items(text)], hint)


def _without_none(hint: Any) -> Any:
    return next(one for one in get_args(hint) if one is not type(None)) if type(None) in get_args(hint) else hint


def _items(text: str) -> list[str]:
    """Return the items of ``0.5,0.75`` or ``[0.5, 0.75]``."""
    return [item.strip() for item in text.strip("[]() ").split(",") if item.strip()]


def _number(text: str, kind: type) -> Any:
    return int(text) if kind is int and re.fullmatch(r"[+-]?[0-9]{1,4000}", text.strip()) else text


def _whole(kind: type, tokens: Sequence[Token]) -> Any:
    """Return a whole number, or a list of them; cyclopts would round 2.5."""
    numbers = [_number(token.value, int) for token in tokens]
    for number in numbers:
        if not isinstance(number, int):
            raise ValueError(f"must be a whole number, not {quote(number)}")
    return numbers if get_origin(kind) is list else numbers[0]


def _whole_or_null(kind: type, tokens: Sequence[Token]) -> Any:
    return None if tokens[0].value == "null" else _whole(kind, tokens)


def _decimals(_: type, tokens: Sequence[Token]) -> tuple[float, ...]:
    try:
        return tuple(float(item) for item in _items(tokens[0].value))
    except ValueError:
        raise ValueError(f"must be a list of numbers such as 0.5,0.25, not {quote(tokens[0].value)}") from None


def _text(_: type, tokens: Sequence[Token]) -> str:
    if not all(token.value.strip() for token in tokens):
        raise ValueError("must not be empty")
    return ",".join(token.value for token in tokens)


def _texts(kind: type, tokens: Sequence[Token]) -> list[str]:
    _text(kind, tokens)
    return [token.value for token in tokens]


def _path(kind: type, tokens: Sequence[Token]) -> Path:
    return Path(_text(kind, tokens)).expanduser()


def default_text(value: Any) -> str:
    """Return a default value as one types it; nothing for None, a switch that is off and an empty list."""
    if isinstance(value, list | tuple):
        between = " " if isinstance(value, list) else ","
        return between.join(f'"{one}"' if "(" in str(one) else default_text(one) for one in value)
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None or value is False else "on" if value is True else str(value)


WholeNumber = Annotated[int, Parameter(converter=_whole)]
OptionalWholeNumber = Annotated[int | None, Parameter(converter=_whole_or_null)]
WholeNumbers = Annotated[list[int], Parameter(converter=_whole, consume_multiple=1)]
OptionalDecimals = Annotated[tuple[float, ...] | None, Parameter(converter=_decimals, n_tokens=1, metavar="X,X,X")]
Text = Annotated[str, Parameter(converter=_text)]
OptionalText = Annotated[str | None, Parameter(converter=_text)]
Texts = Annotated[list[str], Parameter(converter=_texts, consume_multiple=1)]
File = Annotated[Path, Parameter(converter=_path)]
Files = Annotated[Path, Parameter(converter=_path, required=True)]
"""Of ``*paths``: one or more."""
FileOrScreen = Annotated[Path | bool, Parameter(converter=_path)]
"""An option that writes to the file that is named, or to the screen."""
TextOrOn = Annotated[str | bool, Parameter(converter=_text, negative="")]
"""An option that may be followed by a text."""
Accelerator = Annotated[Literal["auto", "cuda", "mps", "cpu"], Parameter(group=MACHINE)]
MachineNumber = Annotated[int, Parameter(converter=_whole, group=MACHINE)]
