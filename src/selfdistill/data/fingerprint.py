"""Which images a run was made of: a short fingerprint of classes, files and labels, and what differs between two."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfdistill.text import count_of, join_names, plain_name

Fingerprint = dict[str, Any]
"""
split: how the test images were chosen; classes: their names; train, test: lists by class, ``n``, ``names`` and
``contents``: how many images, and sums over them of the hashes of their names and contents; order: a hash of all.
"""

_MOST_BYTES = 2**28
"""Contents are hashed of sets up to so many bytes; of larger ones the files' sizes take their place."""

_MOST_FILES = 100_000
"""Of more files the sizes are not asked either: a network's file system answers each slowly."""


def summarise(classes: Sequence[str], parts: Mapping[str, tuple[Tensor, Tensor]], split: str) -> Fingerprint:
    """Return a fingerprint: equal for the same images, labels and classes in the same order.

    Args:
        parts: of ``train`` and ``test``, labels int64 ``(N,)`` and ids int64 ``(N, 2)``, as :func:`file_ids` gives.

    Example:
        >>> labels, images = torch.tensor([0, 1]), torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
        >>> one, other = labels, labels.flip(0)
        >>> there, here = (
        ...     summarise(["cat", "dog"], dict.fromkeys(["train", "test"], (y, pixel_ids(images))), "test folder")
        ...     for y in (one, other)
        ... )
        >>> changes(there, there), changes(there, here)
        ('', 'the same images have other labels or are in other parts (cat and dog)')
    """
    order = hashlib.blake2b(digest_size=8)
    known: Fingerprint = {"split": split, "classes": list(classes)}
    for part, (labels, ids) in parts.items():
        order.update(torch.cat((labels[:, None], ids), dim=1).numpy().tobytes())
        sums = torch.zeros(len(classes), 2, dtype=torch.int64).index_add(0, labels, ids)  # modulo 2**64
        names, contents = (
            [f"{value % 2**64:016x}" if value else "" for value in column.tolist()] for column in sums.unbind(1)
        )
        counts = torch.bincount(labels, minlength=len(classes)).tolist()
        known[part] = {"n": counts, "names": names, "contents": contents}
    return known | {"order": order.hexdigest()}


def file_ids(paths: Sequence[Path], texts: Sequence[str] | None = None) -> Tensor:
    """Return ids ``(N, 2)`` of files: by their names, and by contents or sizes.

    Args:
        texts: what else belongs to the content of each, such as its box.
    """
    sizes = [path.stat().st_size for path in paths] if len(paths) <= _MOST_FILES else [0] * len(paths)
    whole = 0 < sum(sizes) <= _MOST_BYTES
    names = hashes(plain_name(path.name).encode() for path in paths)
    contents = hashes(path.read_bytes() for path in paths) if whole else torch.tensor(sizes, dtype=torch.int64)
    ids = torch.stack((names, contents), dim=1)
    if texts is not None:
        ids[:, 1] += hashes(text.encode() for text in texts)
    return ids


def pixel_ids(images: Tensor) -> Tensor:
    """Return ids ``(N, 2)`` of images without names, uint8 ``(N, ...)``; of very many the labels alone count."""
    ids = torch.zeros(len(images), 2, dtype=torch.int64)
    if images.nbytes <= 4 * _MOST_BYTES:
        ids[:, 1] = hashes(images.contiguous().numpy())
    return ids


def changes(there: Fingerprint, here: Fingerprint) -> str:
    """Return in words what is different in ``here``; empty if nothing is."""
    if there == here:
        return ""
    said = []
    if there["split"] != here["split"]:
        said.append(f"the test images are {here['split']!r} instead of {there['split']!r}")
    for one, other, there_are in ((here, there, "there are"), (there, here, "there are no")):
        if "val" in one and "val" not in other:
            said.append(f"{there_are} validation images now")
    old, new = _by_class(there), _by_class(here)
    gone, fresh = ([name for name in one if name not in other] for one, other in ((old, new), (new, old)))
    renamed = {was: name for was in gone for name in fresh if _total([old[was]]) == _total([new[name]])}
    if renamed:
        pairs = ", ".join(f"{was} -> {name}" for was, name in list(renamed.items())[:3])
        said.append(f"{len(renamed)} class{'es' if len(renamed) > 1 else ''} renamed: {pairs}")
    for what, names in (
        ("gone", [name for name in gone if name not in renamed]),
        ("new", [name for name in fresh if name not in renamed.values()]),
    ):
        if names:
            said.append(f"{what} class{'es' if len(names) > 1 else ''}: {_some(names)}")
    said += _image_changes(old, new)
    return "; ".join(said) or "the images or the classes are in another order"


_Class = dict[str, tuple[int, str, str]]
"""By part: n, names and contents of a class."""


def _image_changes(old: Mapping[str, _Class], new: Mapping[str, _Class]) -> list[str]:
    common = [name for name in old if name in new]
    said = []
    for word, sign in (("added", 1), ("removed", -1)):
        for part in ("train", "test", "val"):
            if not all(part in of_class for one in (old, new) for of_class in one.values()):
                continue
            counts = {name: sign * (new[name][part][0] - old[name][part][0]) for name in common}
            more = {name: count for name, count in counts.items() if count > 0}
            if more:
                said.append(f"{count_of(sum(more.values()), f'{part} image')} {word} ({_some(list(more))})")
    renamed, replaced = (
        [
            name
            for name in common
            if any(old[name][part][at] != new[name][part][at] for part in old[name] if part in new[name])
        ]
        for at in (1, 2)
    )
    if replaced and _total(old.values()) == _total(new.values()):
        return [f"the same images have other labels or are in other parts ({_some(replaced)})", *said]
    if replaced and not said:
        return [f"images or their boxes replaced in {_some(replaced)}"]
    return said or ([f"files renamed in {_some(renamed)}"] if renamed else [])


def _by_class(known: Fingerprint) -> dict[str, _Class]:
    of_part = {
        part: list(zip(*(known[part][key] for key in ("n", "names", "contents")), strict=True))
        for part in ("train", "test", "val")
        if part in known
    }
    return {name: {part: of_part[part][at] for part in of_part} for at, name in enumerate(known["classes"])}


def _total(classes: Iterable[_Class]) -> tuple[int, int]:
    images = [part for of_class in classes for part in of_class.values()]
    return sum(n for n, _, _ in images), sum(int(contents or "0", 16) for _, _, contents in images) % 2**64


def _some(names: Sequence[str]) -> str:
    more = [f"{len(names) - 3} more"] if len(names) > 3 else []
    return join_names([*names[:3], *more])


def hashes(contents: Iterable[Any]) -> Tensor:
    """Return 64-bit hashes, int64 ``(N,)``."""
    digests = b"".join(hashlib.blake2b(content, digest_size=8).digest() for content in contents)
    return torch.from_numpy(np.frombuffer(digests, ">i8").astype(np.int64))
