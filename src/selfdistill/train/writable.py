"""Whether a folder can be made and written, before hours of work that it is for."""

import os
from pathlib import Path


def check_writable(out: Path) -> None:
    """Refuse a folder that cannot be made or written.

    Raises:
        OSError: one line that names ``--out``.
    """
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise OSError(f"{there} is a file, not a folder: choose another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OSError(f"cannot write in {there}: choose another --out")
