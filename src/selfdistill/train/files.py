"""What writers that were killed leave behind."""

from pathlib import Path


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of :func:`selfdistill.records.write_atomically` that were not renamed."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
