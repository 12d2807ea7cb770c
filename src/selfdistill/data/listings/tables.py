"""Tables of image files: ``path,label[,split]`` as CSV or Parquet."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from selfdistill.data.folders import PARTS, Files, files_data
from selfdistill.data.listings.names import class_order, part_of
from selfdistill.data.named.listed import check_there
from selfdistill.data.sets import ImageData, Limits
from selfdistill.text import plain_name, quote

TABLES = (".csv", ".parquet")

_COLUMNS = ("path", "label", "split")


class _Row(NamedTuple):
    number: int  # in the file, from 1; a header counts
    path: str
    label: str
    split: str


def load_table(table: Path, *, image_size: int | None, limits: Limits, skip_unreadable: bool) -> ImageData:
    """Read the image files that a table lists, as :func:`~selfdistill.data.folders.load_folder` reads those of folders.

    Its columns are ``path`` and ``label``, and if wanted ``split``: train, test or val, of which train and one other
    are needed. Without it about 20 % of each class are held out by path. Other columns are not read. Paths are relative
    to the table's folder, and stay below it; absolute ones are taken as they are. Classes are sorted by name, or as
    numbers if all of them are.

    Raises:
        ValueError: a column is missing, a row is wrong, a file is missing or in two classes; one line that names it.
        RuntimeError: Parquet cannot be read here.
    """
    rows = _checked(table, list(_read_csv(table) if table.suffix.lower() == ".csv" else _read_parquet(table)))
    classes = class_order({row.label for row in rows})
    limits.check(classes, table)
    label_of = {name: label for label, name in enumerate(classes[: limits.classes])}
    parts: dict[str, Files] = {part: [] for part in PARTS}
    for row in rows:
        if row.label in label_of:
            parts[row.split].append((_place(table, row), label_of[row.label]))
    check_there([path for part in parts.values() for path, _ in part], table, "correct the list")
    used = {part: files for part, files in parts.items() if files}
    return files_data(
        plain_name(table.stem),
        table,
        list(label_of),
        used,
        places={part: lambda name, part=part: f"the {part} rows of {table}" for part in used},  # type: ignore[misc]
        described={part: f"{part} rows of {table.name}" for part in used} if len(used) > 1 else {},
        name_of=lambda path, _: (
            path.relative_to(table.parent) if path.is_relative_to(table.parent) else path
        ).as_posix(),
        image_size=image_size,
        limits=limits,
        skip_unreadable=skip_unreadable,
    )


def _read_csv(table: Path) -> Iterator[_Row]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(table, [name or "" for name in reader.fieldnames or ()])
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"{table}, line {reader.line_num}: not as many values as columns")
                yield _Row(reader.line_num, *(row.get(name, "") for name in _COLUMNS))
    except (csv.Error, UnicodeError) as error:
        raise ValueError(f"{table}: not a CSV file in UTF-8 ({' '.join(str(error).split())})") from None


def _read_parquet(table: Path) -> Iterator[_Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError:
        raise RuntimeError(f'{table} needs pyarrow: pip install "selfdistill[parquet]"') from None
    try:
        names = parquet.read_schema(table).names
        _check_columns(table, names)
        read = parquet.read_table(table, columns=[name for name in _COLUMNS if name in names])
    except (ArrowException, OSError) as error:
        raise ValueError(f"{table}: not a Parquet file ({' '.join(str(error).split())[:200]})") from None
    columns = [read[name].to_pylist() if name in names else [""] * len(read) for name in _COLUMNS]
    for number, values in enumerate(zip(*columns, strict=True), 1):
        if any(isinstance(value, list) for value in values):
            raise ValueError(f"{table}, row {number}: several labels of an image (multi-label) are not supported")
        yield _Row(number, *("" if value is None else str(value) for value in values))


def _check_columns(table: Path, names: Sequence[str]) -> None:
    missing = [name for name in _COLUMNS[:2] if name not in names]
    if missing:
        raise ValueError(
            f"{table} has no column {missing[0]!r}, it has {quote(list(names))}; wanted: path,label[,split]"
        )
    if twice := next((name for name in _COLUMNS if names.count(name) > 1), None):
        raise ValueError(f"{table} has two columns {twice!r}")


def _checked(table: Path, rows: list[_Row]) -> list[_Row]:
    """Return the rows with plain labels and the parts' own names."""
    if not rows:
        raise ValueError(f"{table} lists no image")
    has_parts = any(row.split for row in rows)
    seen: dict[str, _Row] = {}
    for at, row in enumerate(rows):
        where = f"{table}, line {row.number}"
        if not row.path.strip() or not row.label.strip() or "\0" in row.path:
            raise ValueError(f"{where}: an empty path or label")
        part = part_of(row.split) if has_parts else "train"
        if part is None:
            raise ValueError(f"{where}: split is {quote(row.split)}, wanted train, test or val")
        first = seen.setdefault(row.path, row)
        if first is not row:
            label = first.label == row.label
            what = "is listed twice" if label else "has two labels: several of an image (multi-label) are not supported"
            raise ValueError(f"{where}: {quote(row.path)} {what} (first in line {first.number})")
        rows[at] = row._replace(label=plain_name(row.label.strip()), split=part)
    used = {row.split for row in rows}
    if has_parts and ("train" not in used or len(used) == 1):
        raise ValueError(f"{table} has rows of {', '.join(sorted(used))} alone: train and test (or val) are needed")
    if "test" not in used:  # val alone is for testing, as of folders
        return [row._replace(split="test") if row.split == "val" else row for row in rows]
    return rows


def _place(table: Path, row: _Row) -> Path:
    path = Path(row.path)
    if not path.is_absolute() and ".." in path.parts:
        raise ValueError(
            f"{table}, line {row.number}: {quote(row.path)} leads out of the table's folder: write an absolute path"
        )
    return table.parent / path
