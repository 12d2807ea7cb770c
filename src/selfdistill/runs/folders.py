"""Folders of runs: what they are called, and whether they can be written before hours of work."""

import os
from pathlib import Path


def name_of(data: str) -> str:
    """Return what folders of runs on some images are called: a dataset's name, a folder's, a file's without .npz.

    Example:
        >>> name_of("cifar100"), name_of("my/photos/"), name_of("digits.npz")
        ('cifar100', 'photos', 'digits')
    """
    return Path(data).expanduser().resolve().name.removesuffix(".npz") or "data"


def check_writable(out: Path) -> None:
    """Refuse a folder that cannot be made or written.

    Raises:
        OSError: one line that names the argument, ``out``.
    """
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise OSError(f"{there} is a file, not a folder: choose another `out`")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OSError(f"cannot write in {there}: choose another `out`")
