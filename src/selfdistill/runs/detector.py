"""Train one detector with a progress bar."""

from pathlib import Path

import torch.distributed
from rich.console import Console

from selfdistill.detect import DetectRecipe, DetectRecord, detect
from selfdistill.train import progress_bar


def run_detector(
    recipe: DetectRecipe, out: Path | None, *, devices: int, nodes: int, accelerator: str
) -> tuple[DetectRecord | None, Path]:
    """Train and evaluate a detector with a progress bar; return the record and the run's folder.

    Of several processes only the first returns the record, so that its results are printed once.

    Args:
        recipe: what to do.
        out: the run's folder; None is ``detectors/<data>-<backbone>-<E>-epochs-seed<N>``.
        devices: as for :func:`selfdistill.detect.detect`, like the rest.
        nodes: machines.
        accelerator: what kind of device.

    Raises:
        ValueError: what :func:`selfdistill.detect.detect` raises.
    """
    start = recipe.model if recipe.backbone is None else Path(recipe.backbone).expanduser().resolve().name
    data = Path(recipe.data).expanduser().resolve().name
    name = f"{data}-{start}-{recipe.epochs}-epochs-seed{recipe.seed}"
    out = out or Path("detectors") / name
    console = Console(stderr=True)
    with progress_bar(out.name, console) as progress:
        record = detect(
            recipe,
            out,
            devices=devices,
            nodes=nodes,
            accelerator=accelerator,
            progress=progress,
            announce=lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True),
        )
    first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    return record if first else None, out
