"""Files that are either whole or not there, also after the power failed."""

import os
from pathlib import Path

from selfdistill import records


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, after any crash, finds the old content or the new, never a part.

    Raises:
        OSError: it cannot be written (a full disk, no permission), in one line; what was there before is untouched.
    """
    try:
        records.write_atomically(path, content)
        # The rename itself is on the disk only once the folder is.
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from None


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of writers that were killed."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
