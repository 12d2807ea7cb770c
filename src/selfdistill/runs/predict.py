"""Use what was trained: the class and its probability for each image file."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from selfdistill.config.train_config import SMALL
from selfdistill.data import ImageData, Split, eval_batches
from selfdistill.data.decode import IMAGE_SUFFIXES, cpu_count, scan, to_tensor
from selfdistill.data.files import explained_worker_losses
from selfdistill.data.folders import find_images, unread_note
from selfdistill.errors import ArgumentError, naming
from selfdistill.evaluation.images import predict
from selfdistill.network import default_device
from selfdistill.runs.folders import check_writable_file
from selfdistill.text import csv_text
from selfdistill.training.export import LoadedModel, load_run

FEW = 256
"""So many images are decoded sooner than processes that would help are started."""


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
    max_pixels: int | None = None,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    workers: int | None = None,
) -> tuple[list[Prediction], list[str]]:
    """Predict image files, prepared as the run's own test images were.

    Args:
        loaded: what :func:`selfdistill.training.load_run` returned.
        paths: image files, and folders that are searched for them, subfolders included.
        skip_unreadable: leave out files that cannot be read instead of stopping.
        max_pixels: files of more pixels are unreadable.
        batch_size: images per pass.
        device: where the model runs.
        workers: decoding processes, for images above 64 pixels; None: none for few images, one per processor for many.

    Returns:
        The predictions in the order of the files, and a line for each file left out.

    Raises:
        ValueError: no image, or one that cannot be read (it is named).
    """
    files = list(_files(paths))
    if not files:
        raise ValueError(f"no image in {', '.join(map(str, paths))} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    size = loaded.image_size
    found = scan(files, size, max_pixels=max_pixels)
    if found.reasons and not skip_unreadable:
        first, count = next(iter(found.reasons.values())), len(found.reasons)
        raise ValueError(
            f"{first} ({count} unreadable of {len(files)} files: repair or remove {'them' if count > 1 else 'it'}, "
            "or pass `skip_unreadable=True`)"
        )
    kept = [at for at in range(len(files)) if at not in found.reasons]
    if not kept:
        raise ValueError(f"none of the {len(files)} files can be read; the first: {found.reasons[0]}")
    labels = torch.zeros(len(kept), dtype=torch.int64)
    if size <= SMALL:
        split = Split(labels, images=to_tensor(image for image in found.small if image is not None))
    else:
        split = Split(labels, paths=tuple(files[at] for at in kept))
    probabilities = predict_split(loaded, split, batch_size=batch_size, device=device, workers=workers)
    best = probabilities.max(dim=1)
    return [
        Prediction(files[at], loaded.classes[label], confidence, tuple(row))
        for at, label, confidence, row in zip(
            kept, best.indices.tolist(), best.values.tolist(), probabilities.tolist(), strict=True
        )
    ], list(found.reasons.values())


def predict_split(
    loaded: LoadedModel,
    split: Split,
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    workers: int | None = None,
) -> Tensor:
    """Return the posteriors of images, float64 ``(N, C)``; the arguments are those of `predict_files`."""
    if workers is None:
        workers = 0 if len(split) < FEW else min(8, cpu_count())
    model = loaded.model.to(device)
    batches = eval_batches(split, _as_data(loaded, split), batch_size=batch_size, device=device, workers=workers)
    with explained_worker_losses():
        return (predict(model, batches)[0].double() / loaded.temperature).softmax(dim=1)


def predict_run(
    run: Path,
    paths: Iterable[Path],
    *,
    csv: Path | None = None,
    skip_unreadable: bool = False,
    max_pixels: int | None = None,
) -> tuple[list[Prediction], list[str], tuple[str, ...]]:
    """Predict image files with the network of a run, on a GPU where there is one.

    Args:
        run: the run's folder, or an exported file of weights.
        paths: image files, and folders that are searched for them.
        csv: the file that the predictions will be written to: an image is not overwritten.
        skip_unreadable: leave out files that cannot be read instead of stopping.
        max_pixels: files of more pixels are unreadable.

    Returns:
        The predictions, a line for each file left out, and the names of the classes.

    Raises:
        ArgumentError: ``csv`` has the name of an image.
        ValueError: no finished run, no image, or one that cannot be read.
        NonFiniteError: weights or logits are not finite numbers.
    """
    if csv is not None:
        refuse_image_name(csv)
        check_writable_file("csv", csv)
    loaded = load_run(run)
    device = default_device()
    with naming(run):
        predicted = predict_files(loaded, paths, skip_unreadable=skip_unreadable, max_pixels=max_pixels, device=device)
    return *predicted, loaded.classes


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        if path.is_dir():
            found, unread = find_images(path)
            if found and unread:
                warnings.warn(f"{path}: {unread_note(unread)}", stacklevel=2)
            yield from found
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
        test_split_description="files",
        skipped=(),
    )


def to_csv(predictions: Sequence[Prediction], classes: Sequence[str]) -> str:
    """Return a heading and one row per file: path, class, its probability, then every class's probability."""
    heading = ["file", "class", "confidence", *(f"p({name})" for name in classes)]
    rows = ([str(p.path), p.label, f"{p.confidence:.6f}", *(f"{q:.6f}" for q in p.probabilities)] for p in predictions)
    return csv_text([heading, *rows])


def refuse_image_name(csv: Path) -> None:
    """Refuse to write a table over an image: of two images, the second was meant to be classified too.

    Raises:
        ArgumentError: the name is that of an image.
    """
    if csv.suffix.lower() in IMAGE_SUFFIXES:
        raise ArgumentError("csv", f"is {csv}, the name of an image: put `paths` first and name a .csv file")
