"""Use what was trained: the class and its probability for each image file."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from selfdistill.data import ImageData, Split, eval_batches
from selfdistill.data.decode import IMAGE_SUFFIXES, scan, to_tensor
from selfdistill.evaluate.suite import predict
from selfdistill.records import write_atomically
from selfdistill.train.export import LoadedModel
from selfdistill.train.recipe import SMALL


@dataclass(frozen=True)
class Prediction:
    """The likeliest class of one image, its probability, and the probabilities of all classes in the model's order."""

    path: Path
    label: str
    confidence: float
    probabilities: tuple[float, ...]


def predict_files(
    loaded: LoadedModel,
    paths: Iterable[Path],
    *,
    skip_unreadable: bool = False,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> tuple[list[Prediction], list[str]]:
    """Predict image files, prepared as the run's own test images were.

    Args:
        loaded: what :func:`selfdistill.train.load_run` returned.
        paths: image files, and folders that are searched for them, subfolders included.
        skip_unreadable: leave out files that cannot be read instead of stopping.
        batch_size: images a pass.
        device: where the model runs.
        workers: decoding processes, for images above 64 pixels.

    Returns:
        The predictions in the order of the files, and a line for each file left out.

    Raises:
        ValueError: no image, or one that cannot be read (it is named).
    """
    files = list(_files(paths))
    if not files:
        raise ValueError(f"no image in {', '.join(map(str, paths))} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    size = loaded.image_size
    found = scan(files, size)
    if found.reasons and not skip_unreadable:
        first, count = next(iter(found.reasons.values())), len(found.reasons)
        raise ValueError(
            f"{first}; {count} of {len(files)} files cannot be read: give --skip-unreadable to leave them out"
        )
    kept = [at for at in range(len(files)) if at not in found.reasons]
    if not kept:
        raise ValueError(f"none of the {len(files)} files can be read; the first: {found.reasons[0]}")
    labels = torch.zeros(len(kept), dtype=torch.int64)
    if size <= SMALL:
        split = Split(labels, images=to_tensor(image for image in found.small if image is not None))
    else:
        split = Split(labels, paths=tuple(files[at] for at in kept))
    model = loaded.model.to(device)
    batches = eval_batches(split, _as_data(loaded, split), batch_size=batch_size, device=device, workers=workers)
    probabilities = predict(model, batches)[0].double().softmax(dim=1)
    best = probabilities.max(dim=1)
    return [
        Prediction(files[at], loaded.classes[label], confidence, tuple(row))
        for at, label, confidence, row in zip(
            kept, best.indices.tolist(), best.values.tolist(), probabilities.tolist(), strict=True
        )
    ], list(found.reasons.values())


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file() and not file.name.startswith(".")
            )
        elif path.exists():
            yield path
        else:
            raise ValueError(f"{path}: no such file or folder")


def _as_data(loaded: LoadedModel, split: Split) -> ImageData:
    return ImageData(
        name="files",
        train=split,
        test=split,
        classes=loaded.classes,
        mean=loaded.mean,
        std=loaded.std,
        image_size=loaded.image_size,
        augment="none",
        test_is="files",
        skipped=(),
    )


def write_csv(path: Path, predictions: Sequence[Prediction], classes: Sequence[str]) -> None:
    """Write a heading and one row a file: path, class, its probability, then every class's probability."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "class", "confidence", *(f"p({name})" for name in classes)])
    for p in predictions:
        writer.writerow([p.path, p.label, f"{p.confidence:.6f}", *(f"{q:.6f}" for q in p.probabilities)])
    write_atomically(path, text.getvalue().encode())
