"""Datasets of Hugging Face: what ``save_to_disk`` wrote, or a name on the hub. Images stay where they are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfdistill.data.fingerprint import hashes
from selfdistill.data.folders import PARTS
from selfdistill.data.listings.names import packed_data, part_of
from selfdistill.data.packed import Packed
from selfdistill.data.sets import ImageData, Limits
from selfdistill.text import first_line, join_names, plain_name, quote

_AT_ONCE = 1000  # rows whose sizes are asked
_ENDS = ((0, 4096), (-4096, None))  # of a file: what its name is where it has none


class TableImages(Packed):
    """Images in a column of datasets.

    Args:
        parts: the datasets by name; a row is counted through all of them.
        column: that holds the images, which are not decoded.
        rows: as for :class:`~selfdistill.data.packed.Packed`.
    """

    def __init__(self, parts: Mapping[str, Any], column: str, rows: NDArray[np.int64]):
        super().__init__(rows)
        self.parts, self.column = parts, column
        self._starts = np.cumsum([0, *(len(part) for part in parts.values())])

    def read(self, row: int) -> bytes:
        """Return an encoded image; of one that is a path, the file's content."""
        name, at = self._place(row)
        cell: dict[str, Any] = self.parts[name][at][self.column] or {}
        if cell.get("bytes"):
            return bytes(cell["bytes"])
        if cell.get("path"):
            return Path(cell["path"]).read_bytes()
        raise OSError("the cell is empty")

    def describe(self, row: int) -> str:
        """Return the part and the row."""
        name, at = self._place(row)
        return f"{name}, row {at:,}"

    def identify(self, row: int) -> tuple[Any, ...]:
        """Return the dataset's own fingerprint, and the row."""
        name, at = self._place(row)
        return self.parts[name]._fingerprint, at

    def _place(self, row: int) -> tuple[str, int]:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return list(self.parts)[number], int(row - self._starts[number])


def load_hub(source: str, *, image_size: int | None, limits: Limits, skip_unreadable: bool) -> ImageData:
    """Load a folder that ``save_to_disk`` wrote, or a dataset of the hub, or a copy of one, by ``NAME[:CONFIG]``.

    It has one column of images and one of class labels. Its parts are called train, test and validation, as those of
    folders are; of a single one about 20 % of each class are held out.

    Raises:
        ValueError: it is no such dataset, or it is not clear which column is meant; one line.
        RuntimeError: the library is not installed, or the hub cannot be reached.
    """
    parts = _parts(source, _loaded(source))
    first = next(iter(parts.values()))
    image, label = _columns(source, first.features)
    classes = tuple(map(plain_name, first.features[label].names))
    if any(tuple(map(plain_name, part.features[label].names)) != classes for part in parts.values()):
        raise ValueError(f"{source}: the parts have other classes")
    labels = np.concatenate([np.asarray(part.with_format("numpy")[label][:], np.int64) for part in parts.values()])
    if (labels < 0).any():
        raise ValueError(f"{source}: {int((labels < 0).sum()):,} images have no label: filter them out")
    from datasets import Image

    encoded = {
        name: part.with_format(None).select_columns([image]).cast_column(image, Image(decode=False))
        for name, part in parts.items()
    }
    number = [list(PARTS).index(name) for name, part in parts.items() for _ in range(len(part))]
    return packed_data(
        plain_name(Path(source).name.replace(":", "-")),
        TableImages(encoded, image, np.arange(len(labels))),
        labels=labels,
        classes=classes,
        part_of=np.array(number),
        ids=torch.cat([_ids(part, image) for part in encoded.values()]),
        source=source,
        unit="rows",
        image_size=image_size,
        limits=limits,
        skip_unreadable=skip_unreadable,
        ordered=True,
    )


def _loaded(source: str) -> Any:
    try:
        import datasets
    except ModuleNotFoundError:
        raise RuntimeError(f'hf:{source} needs datasets: pip install "selfdistill[huggingface]"') from None
    name, config = (source, "") if source and Path(source).expanduser().exists() else _split(source)
    path = Path(name).expanduser()
    saved = any((path / file).is_file() for file in ("dataset_info.json", "dataset_dict.json"))
    if saved and config:
        raise ValueError(f"{source}: what save_to_disk wrote has no configurations: leave out {quote(':' + config)}")
    try:
        if path.exists() and not (path / "README.md").is_file():  # which a copy of a dataset of the hub has
            return datasets.load_from_disk(str(path))
        return datasets.load_dataset(str(path) if path.exists() else name, config or None)
    except Exception as error:  # each layer has errors of its own
        if "config name is missing" in str(error).lower():
            told = " ".join(str(error).split()).partition("Example of usage")[0].rstrip()
            raise ValueError(f"{source}: {told}; write hf:{source}:CONFIG") from None
        what = "not a folder of save_to_disk" if path.exists() else "not a folder, and not to be had from the hub"
        raise (ValueError if path.exists() else RuntimeError)(f"{source} is {what} ({first_line(error)})") from None


def _split(source: str) -> tuple[str, str]:
    """Return the name and the configuration of ``NAME[:CONFIG]``, which may be empty.

    Example:
        >>> _split("owner/name:small"), _split("owner/name")
        (('owner/name', 'small'), ('owner/name', ''))
    """
    name, colon, config = source.partition(":")
    if not name or (colon and not config):
        raise ValueError(f"hf:{source}: the name of a dataset is missing, wanted hf:NAME or hf:NAME:CONFIG")
    return name, config


def _parts(source: str, loaded: Any) -> dict[str, Any]:
    """Return the datasets by their part's own name."""
    if not isinstance(loaded, dict):
        return {"train": loaded}
    found = {part: dataset for name, dataset in loaded.items() if (part := part_of(name)) is not None}
    if "train" not in found:
        raise ValueError(f"{source} has no part 'train', it has {quote(list(loaded))}")
    if "test" not in found and "val" in found:  # val alone is for testing, as of folders
        found["test"] = found.pop("val")
    return found


def _columns(source: str, features: Mapping[str, Any]) -> tuple[str, str]:
    """Return the columns of the images and of the class labels."""
    from datasets import ClassLabel, Image

    kinds = {"image": [name for name, kind in features.items() if isinstance(kind, Image)]}
    kinds["label"] = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    if not kinds["label"] and any(isinstance(getattr(kind, "feature", None), ClassLabel) for kind in features.values()):
        raise ValueError(f"{source}: several labels of an image (multi-label) are not supported")
    chosen = []
    for usual, names in kinds.items():
        if len(names) != 1 and usual not in names:
            what = "images (datasets.Image)" if usual == "image" else "class labels (datasets.ClassLabel)"
            has = f"it has {join_names(map(repr, names))}: rename the one" if names else "cast the one that is"
            raise ValueError(f"{source} should have one column of {what}; {has}")
        chosen.append(names[0] if len(names) == 1 else usual)
    return chosen[0], chosen[1]


def _ids(part: Any, column: str) -> Tensor:
    """Return ids ``(N, 2)``: by the file's name or else its first and last bytes, and by the size."""
    import pyarrow as pa
    from pyarrow import compute

    arrow, names, sizes = part.with_format("arrow"), [], []
    for start in range(0, len(part), _AT_ONCE):
        cells: Any = arrow[start : start + _AT_ONCE][column]
        cells = cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells
        paths, contents = (compute.struct_field(cells, field) for field in ("path", "bytes"))
        ends = zip(*(compute.binary_slice(contents, *part).to_pylist() for part in _ENDS), strict=True)
        named = zip(paths.to_pylist(), ends, strict=True)
        names += [plain_name(Path(path).name).encode() if path else b"".join(map(bytes, end)) for path, end in named]
        lengths: Sequence[int | None] = compute.binary_length(contents).to_pylist()
        sizes += [length or 0 for length in lengths]
    return torch.stack((hashes(names), torch.tensor(sizes)), dim=1)
