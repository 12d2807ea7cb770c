"""WebDataset shards: images and labels in .tar files, indexed once and then read where they lie.

A sample is what stands one behind the other under one name up to its first dot: ``0001.jpg`` with ``0001.cls``. Its
class is the text of ``.cls``, or ``label`` or ``cls`` of ``.json``, or else the folder that it is in. The index takes
some 60 bytes for each image: any image is read by itself, so that an epoch is shuffled wholly, split
over processes and workers, and resumed like that of files.
"""

import hashlib
import json
import os
import re
import tarfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from selfdistill.data.decode import IMAGE_SUFFIXES, MAX_BYTES, check_regular
from selfdistill.data.fingerprint import hashes
from selfdistill.data.folders import PARTS, unread_note
from selfdistill.data.listings.names import packed_data, part_of
from selfdistill.data.packed import Packed
from selfdistill.data.sets import ImageData, Limits
from selfdistill.files import read_at, read_cache, write_cache
from selfdistill.progress import track
from selfdistill.text import plain_name, quote

_LABEL_BYTES, _SHARD_BYTES, _LONGEST = 2**20, 2**50, 255
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SHARDS = 100_000
_MANY, _FORMAT = 10_000, 1  # images of an index that is worth keeping


def holds_shards(folder: Path) -> bool:
    """Whether a folder has .tar files and no folder in it."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return any(entry.suffix == ".tar" for entry in entries) and not any(entry.is_dir() for entry in entries)


class TarImages(Packed):
    """Images in .tar files.

    Args:
        shards: the files.
        table: int64 ``(M, 3)``: shard, offset and size in bytes of each image.
        rows: as for :class:`~selfdistill.data.packed.Packed`.
    """

    def __init__(self, shards: Sequence[Path], table: NDArray[np.int64], rows: NDArray[np.int64]):
        super().__init__(rows)
        self.shards, self.table = tuple(shards), table

    def read(self, row: int) -> bytes:
        """Return an encoded image."""
        shard, offset, size = self.table[row].tolist()
        with self.shards[shard].open("rb", buffering=0) as file:
            return read_at(file.fileno(), size, offset)

    def describe(self, row: int) -> str:
        """Return the shard and the member's name, which its header holds."""
        shard, offset, _ = self.table[row].tolist()
        try:
            with self.shards[shard].open("rb", buffering=0) as file:
                header = read_at(file.fileno(), tarfile.BLOCKSIZE, offset - tarfile.BLOCKSIZE)
            name = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name
        except (OSError, tarfile.TarError):
            name = f"byte {offset:,}"
        return f"{self.shards[shard]}, {plain_name(name)}"

    def identify(self, row: int) -> tuple[Any, ...]:
        """Return the shard, when it was written, and the place in it."""
        shard, offset, size = self.table[row].tolist()
        return str(self.shards[shard].absolute()), self.shards[shard].stat().st_mtime_ns, offset, size


def load_shards(
    pattern: str, *, image_size: int | None, limits: Limits, skip_unreadable: bool, cache: Path | None = None
) -> ImageData:
    """Index shards and return their images.

    Args:
        pattern: a folder of ``train-*.tar`` and ``test-*.tar`` (or ``val-*.tar``), or of .tar files of which about 20 %
            of each class are held out; or such files, as ``shards/train-{000..009}.tar``.
        image_size: as for :func:`~selfdistill.data.load_data`.
        skip_unreadable: decode every image once, and leave out those that cannot be.
        cache: folder where the index of many images is kept, and found as long as the shards are the same.

    Raises:
        ValueError: a shard is missing, damaged or compressed, or a sample has no label; one line that names it.
    """
    shards = _shards(pattern)
    index = _kept_index(list(shards), cache)
    if not len(index.labels):
        raise ValueError(f"{pattern}: no image in it (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    table = np.stack([np.frombuffer(column, np.int64) for column in (index.shards, index.offsets, index.sizes)], axis=1)
    ids = torch.from_numpy(np.stack([np.frombuffer(index.names, np.int64), table[:, 2]], axis=1))
    part_of_shard = np.array([list(PARTS).index(part) for part in shards.values()])
    return packed_data(
        plain_name(_name(pattern)),
        TarImages(list(shards), table, np.arange(len(table))),
        labels=np.frombuffer(index.labels, np.int64),
        classes=list(index.classes),
        part_of=part_of_shard[table[:, 0]],
        ids=ids,
        source=pattern,
        unit="shards",
        image_size=image_size,
        limits=limits,
        skip_unreadable=skip_unreadable,
        notes=(unread_note(index.unread),) if index.unread else (),
    )


def _kept_index(shards: Sequence[Path], cache: Path | None) -> "_Index":
    """Return the index of shards, from the cache if they are the same as when it was made."""
    key = None if cache is None else _key(shards)
    file = None if cache is None or key is None else cache / f"shards-{key}.index"
    if file is not None and (content := read_cache(file)) is not None:
        return _Index.from_bytes(content)
    index = _Index()
    for number, shard in enumerate(track(shards, "indexing shards", len(shards))):
        index.add(number, shard)
    if file is not None and len(index.labels) >= _MANY:
        write_cache(file, index.to_bytes())
    return index


def _key(shards: Sequence[Path]) -> str | None:
    """Name an index; None where a shard cannot be looked at, which is told when it is read."""
    try:
        stats = [shard.stat() for shard in shards]
    except OSError:
        return None
    known = [(str(one.absolute()), its.st_size, its.st_mtime_ns) for one, its in zip(shards, stats, strict=True)]
    return hashlib.sha256(repr((_FORMAT, known)).encode()).hexdigest()[:16]


class _Index:
    """What is known of each image: shard, offset, size, a hash of its name, and its label by first appearance.

    Attributes:
        unread: how many files are neither image nor label, by suffix.
    """

    def __init__(self) -> None:
        self.shards, self.offsets, self.sizes, self.names, self.labels = (array("q") for _ in range(5))
        self.classes: dict[str, int] = {}
        self.unread = Counter[str]()

    def to_bytes(self) -> bytes:
        """Return it as one line of JSON and the columns."""
        known = {"classes": list(self.classes), "unread": self.unread}
        return json.dumps(known).encode() + b"\n" + b"".join(column.tobytes() for column in self._columns())

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Return what `to_bytes` made bytes of."""
        index, start = cls(), content.index(b"\n") + 1
        known = json.loads(content[:start])
        index.classes = {name: label for label, name in enumerate(known["classes"])}
        index.unread.update(known["unread"])
        length = (len(content) - start) // 5
        for number, column in enumerate(index._columns()):
            column.frombytes(memoryview(content)[start + number * length : start + (number + 1) * length])
        return index

    def _columns(self) -> "tuple[array[int], ...]":
        return self.shards, self.offsets, self.sizes, self.names, self.labels

    def add(self, number: int, shard: Path) -> None:
        """Add the samples of a shard."""
        key, image, label = "", None, None
        for name, member in _members(shard):
            folder, _, file = name.rpartition("/")
            stem, _, suffix = file.partition(".")
            if (here := f"{folder}/{stem}") != key:
                self._close(number, shard, key, image, label)
                key, image, label = here, None, None
            if f".{suffix.lower()}" in IMAGE_SUFFIXES and image is None:
                image = member
            elif suffix in ("cls", "json") and label is None:
                label = _label(shard, member, suffix)
            else:
                self.unread[f".{suffix.rpartition('.')[2].lower()}" if suffix else ""] += 1
        self._close(number, shard, key, image, label)

    def _close(self, number: int, shard: Path, key: str, image: tarfile.TarInfo | None, label: str | None) -> None:
        if image is None:
            return
        label = label or PurePosixPath(key).parent.name
        if not label:
            raise ValueError(
                f"{shard}: {quote(image.name)} has no label: put a .cls file beside it, or a folder around"
            )
        self.shards.append(number)
        self.offsets.append(image.offset_data)
        self.sizes.append(image.size)
        self.names.append(int(hashes([plain_name(image.name).encode()])))
        self.labels.append(self.classes.setdefault(plain_name(label), len(self.classes)))


def _members(shard: Path) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Yield the files of an archive, without keeping what went before."""
    try:
        check_regular(shard, _SHARD_BYTES)
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            length = os.fstat(file.fileno()).st_size
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]
                name = member.name.removeprefix("./")
                if not member.isreg() or member.issparse() or PurePosixPath(name).name.startswith("."):
                    continue
                if member.offset_data + member.size > length or member.size > MAX_BYTES:
                    raise ValueError(f"{shard}: {quote(name)} is cut short or too large: make the shard again")
                yield name, member
    except (tarfile.TarError, OSError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(f"{shard}: not an uncompressed .tar file, or a damaged one ({reason})") from None


def _label(shard: Path, member: tarfile.TarInfo, suffix: str) -> str:
    """Return what a .cls or .json file says; empty if a .json has no label."""
    where = f"{shard}: {quote(member.name)}"
    if member.size > _LABEL_BYTES:
        raise ValueError(f"{where} has {member.size:,} bytes, too many for a label")
    with shard.open("rb", buffering=0) as file:
        content = read_at(file.fileno(), member.size, member.offset_data)
    try:
        label: Any = content.decode().strip()
        if suffix == "json":
            values = json.loads(label)
            label = next((values[name] for name in ("label", "cls") if name in values), "")
    except (ValueError, TypeError, RecursionError):
        raise ValueError(f"{where} is not {'JSON' if suffix == 'json' else 'text'} in UTF-8") from None
    if isinstance(label, list):
        raise ValueError(f"{where}: several labels of an image (multi-label) are not supported")
    is_text = isinstance(label, str | int) and not isinstance(label, bool)
    if not is_text or len(str(label)) > _LONGEST or (suffix == "cls" and not label):
        raise ValueError(f"{where} has the label {quote(label)}, expected a number or a name")
    return str(label)


def _shards(pattern: str) -> dict[Path, str]:
    """Return the shards in order, each with its part."""
    path = Path(pattern).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix == ".tar" and not file.name.startswith("."))
        if not files:
            raise ValueError(f"{path} has no .tar file")
    else:
        files = _expanded(str(path))
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise ValueError(f"{pattern}: {len(missing)} of {len(files)} shards are missing, such as {missing[0]}")
    parts = {file: part_of(re.split(r"[-_.\d]", file.name)[0]) for file in files}
    named = {part for part in parts.values() if part}
    if "train" not in named or len(named) == 1:  # no parts: about 20 % are held out
        return dict.fromkeys(files, "train")
    if loose := [file for file, part in parts.items() if part is None]:
        raise ValueError(
            f"{loose[0]} is of no part: call shards train-*.tar, test-*.tar or val-*.tar, or none of them so"
        )
    alone = "test" not in named  # val alone is for testing, as of folders
    return {file: "test" if alone and part == "val" else str(part) for file, part in parts.items()}


def _expanded(pattern: str) -> list[Path]:
    """Return the paths that ``{000..009}`` stands for.

    Example:
        >>> [path.name for path in _expanded("train-{08..10}.tar")]
        ['train-08.tar', 'train-09.tar', 'train-10.tar']
    """
    pieces = _RANGE.split(pattern)  # text, first, last, text, ...
    ranges = [(int(first), int(last), len(first)) for first, last in zip(pieces[1::3], pieces[2::3], strict=True)]
    count = 1
    for first, last, _ in ranges:
        count *= max(0, last - first + 1)
    if not 0 < count <= _MOST_SHARDS:
        raise ValueError(f"{pattern} stands for {count:,} shards, wanted 1 to {_MOST_SHARDS:,}")
    numbers = [[f"{n:0{width}}" for n in range(first, last + 1)] for first, last, width in ranges]
    texts = pieces[::3]
    return [Path("".join(sum(zip(texts, (*one, ""), strict=True), ()))) for one in product(*numbers)]


def _name(pattern: str) -> str:
    path = Path(pattern).expanduser()
    return path.resolve().name if path.is_dir() else path.resolve().parent.name
