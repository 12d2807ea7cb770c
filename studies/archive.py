"""Committed records, compact: one ``.jsonl.xz`` for each study, one JSON file per line with its path.

uv run python studies/archive.py unpack results/trust.jsonl.xz FOLDER     to look at records as files
"""

import json
import lzma
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfdistill.records import write_atomically

RESULTS = Path(__file__).resolve().parents[1] / "results"


def read(archive: Path) -> dict[str, Any]:
    """Return the content of each JSON file by its path; nothing where there is no archive."""
    if not archive.is_file():
        return {}
    with lzma.open(archive, "rt", encoding="utf-8") as lines:
        return {entry["path"]: entry["content"] for entry in map(json.loads, lines)}


def write(archive: Path, contents: Mapping[str, Any]) -> None:
    """Write an archive; the same contents give the same bytes."""
    lines = (json.dumps({"path": path, "content": contents[path]}, separators=(",", ":")) for path in sorted(contents))
    archive.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(archive, lzma.compress("".join(f"{line}\n" for line in lines).encode(), preset=9))


def add(archive: Path, folder: Path, files: Iterable[Path]) -> None:
    """Put JSON files below a folder into an archive, over what is there of the same path."""
    found = {file.relative_to(folder).as_posix(): json.loads(file.read_bytes()) for file in files}
    write(archive, read(archive) | found)


def unpack(archive: Path, folder: Path) -> None:
    """Write the files of an archive below a folder."""
    for path, content in read(archive).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """Give the files of an archive in a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        unpack(archive, Path(folder))
        yield Path(folder)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] != "unpack":
        sys.exit(__doc__)
    unpack(Path(sys.argv[2]), Path(sys.argv[3]))
