"""What the GPU program hands over as it goes: the records of finished runs, those of the benchmarks, and the logs."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import archive

from selfdistill.paper import PaperConfig
from selfdistill.records import write_atomically


def publish(work: Path, config: PaperConfig, out: Path, commit: str | None) -> None:
    """Write into a folder what is there; nothing is ever half written, and other runs' records there are kept.

    The folder is laid out as ``results/``: ``paper-SCALE.jsonl.xz``, ``performance/``; and ``gpu-logs.zip`` has what
    the processes printed and the epochs of runs that are not finished.

    Args:
        work: the work folder.
        config: where its runs are.
        out: the folder.
        commit: of the code, for records that do not say it.
    """
    finished = [result.parent for result in sorted(config.runs.glob("*/result.json"))]
    files = [file for run in finished for file in (run / "result.json", *sorted(run.glob("measured/*.json")))]
    records = {file.relative_to(config.out).as_posix(): _with_commit(file, commit) for file in files}
    if records:
        into = out / f"paper-{config.out.name}.jsonl.xz"
        archive.write(into, archive.read(into) | records)
    for file in work.glob("performance/*.json"):
        (out / "performance").mkdir(parents=True, exist_ok=True)
        content = json.dumps(_with_commit(file, commit), indent=1) + "\n"
        write_atomically(out / "performance" / file.name, content.encode())
    logs = io.BytesIO()
    with zipfile.ZipFile(logs, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in work.glob("logs/*"):
            packed.write(file, file.name)
        for file in config.runs.glob("*/log.csv"):
            if file.parent not in finished:
                packed.write(file, f"{file.parent.name}.csv")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "gpu-logs.zip", logs.getvalue())


def _with_commit(file: Path, commit: str | None) -> dict[str, Any]:
    """Return a record; where the code lies without its repository, it lacks the commit, which is put in."""
    record: dict[str, Any] = json.loads(file.read_bytes())
    return record | {"commit": record["commit"] or commit}
