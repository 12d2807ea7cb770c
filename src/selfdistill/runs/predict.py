"""Use what was trained: the class and its probability for each image file, and what to make of it."""

import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import BinaryIO

import torch
from torch import Tensor

from selfdistill.config.train_config import SMALL
from selfdistill.data import ImageData, Split, eval_batches
from selfdistill.data.decode import IMAGE_SUFFIXES, cpu_count, scan, to_tensor
from selfdistill.data.files import explained_worker_losses
from selfdistill.data.folders import find_images, unread_note
from selfdistill.errors import ArgumentError
from selfdistill.evaluation.arrays import Floats
from selfdistill.evaluation.decision import Decisions, Rules, prepare_decisions
from selfdistill.evaluation.images import predict, read_features
from selfdistill.network import default_device
from selfdistill.text import count_of, csv_text
from selfdistill.training.export import LoadedModel, load_run
from selfdistill.training.signals import Interruptions

FEW = 256
"""So many images are decoded sooner than processes that would help are started."""

_SHOWN = 10  # decisions that are counted by name


@dataclass(frozen=True)
class Prediction:
    """What a network makes of one image.

    Attributes:
        path: the file.
        label: the likeliest class.
        confidence: its probability.
        probabilities: of all classes, in the model's order.
        decision: the class, "not sure" or "unknown"; None where it is always the class.
        classes: the classes that it may be; None where no prediction sets are asked for.
    """

    path: Path
    label: str
    confidence: float
    probabilities: tuple[float, ...]
    decision: str | None = None
    classes: tuple[str, ...] | None = None

    @property
    def asked(self) -> list[tuple[str, str | tuple[str, ...]]]:
        """What of decision and set is asked for, by name."""
        return [(name, one) for name, one in (("decision", self.decision), ("set", self.classes)) if one is not None]


@dataclass(eq=False)
class Predictor:
    """Predicts image files, prepared as the run's own test images were.

    Attributes:
        loaded: what :func:`selfdistill.training.load_run` returned.
        decisions: what to make of the outputs.
        skip_unreadable: leave out files that cannot be read instead of stopping.
        max_pixels: files of more pixels are unreadable.
        batch_size: images per pass.
        device: where the model runs.
        workers: decoding processes, for images above 64 pixels; None: none for few images, one per processor for many.
        skipped: a line for each file that was left out so far.
    """

    loaded: LoadedModel
    decisions: Decisions
    skip_unreadable: bool = False
    max_pixels: int | None = None
    batch_size: int = 64
    device: torch.device | str = "cpu"
    workers: int | None = None
    skipped: list[str] = field(default_factory=list)

    def __call__(self, files: Sequence[Path]) -> list[Prediction]:
        """Return the predictions of the files that can be read, in their order.

        Raises:
            ValueError: one cannot be read (it is named) and ``skip_unreadable`` is not set.
            NonFiniteError: the logits are not finite numbers.
        """
        size = self.loaded.image_size
        found = scan(files, size, max_pixels=self.max_pixels)
        if found.reasons and not self.skip_unreadable:
            first, count = next(iter(found.reasons.values())), len(found.reasons)
            raise ValueError(
                f"{first} ({count} unreadable of {len(files)} files: repair or remove "
                f"{'them' if count > 1 else 'it'}, or pass `skip_unreadable=True`)"
            )
        self.skipped += found.reasons.values()
        kept = [at for at in range(len(files)) if at not in found.reasons]
        if not kept:
            return []
        labels = torch.zeros(len(kept), dtype=torch.int64)
        if size <= SMALL:
            split = Split(labels, images=to_tensor(image for image in found.small if image is not None))
        else:
            split = Split(labels, paths=tuple(files[at] for at in kept))
        return self._predict(split, [files[at] for at in kept])

    def outputs(self, split: Split) -> tuple[Tensor, Tensor | None]:
        """Return the logits ``(N, C)`` of images, and the features where the decisions need them."""
        workers = self.workers
        if workers is None:
            workers = 0 if len(split) < FEW else min(8, cpu_count())
        model = self.loaded.model.to(self.device)
        data = _as_data(self.loaded, split)
        batches = eval_batches(split, data, batch_size=self.batch_size, device=self.device, workers=workers)
        with explained_worker_losses():
            if self.decisions.needs_features:
                reading = read_features(model, batches)
                return reading.logits, reading.features
            return predict(model, batches)[0], None

    def _predict(self, split: Split, files: Sequence[Path]) -> list[Prediction]:
        logits, features = self.outputs(split)
        probabilities = torch.from_numpy(self.decisions.probabilities(logits))
        best = probabilities.max(dim=1)
        decided: Sequence[str | None] = self.decisions.decide(logits, features) or [None] * len(files)
        sets: Sequence[tuple[str, ...] | None] = self.decisions.sets(logits) or [None] * len(files)
        return [
            Prediction(path, self.loaded.classes[label], confidence, tuple(row), decision, classes)
            for path, label, confidence, row, decision, classes in zip(
                files, best.indices.tolist(), best.values.tolist(), probabilities.tolist(), decided, sets, strict=True
            )
        ]


def make_predictor(run: Path, rules: Rules, *, skip_unreadable: bool, max_pixels: int | None) -> Predictor:
    """Load the network of a run onto a GPU, where there is one, with what the rules need of its validation images.

    Raises:
        ValueError: no finished run, or it was not calibrated for the rules.
    """
    loaded = load_run(run)
    decisions = prepare_decisions(run, loaded.classes, loaded.temperature, rules)
    return Predictor(loaded, decisions, skip_unreadable, max_pixels, device=default_device())


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
    plain = Decisions(loaded.classes, loaded.temperature)
    predictor = Predictor(loaded, plain, skip_unreadable, max_pixels, batch_size, device, workers)
    return predict_paths(predictor, paths), predictor.skipped


def predict_split(loaded: LoadedModel, split: Split, *, device: torch.device | str = "cpu") -> Floats:
    """Return the posteriors of images, float64 ``(N, C)``."""
    plain = Decisions(loaded.classes, loaded.temperature)
    return plain.probabilities(Predictor(loaded, plain, device=device).outputs(split)[0])


def predict_paths(predictor: Predictor, paths: Iterable[Path]) -> list[Prediction]:
    """Predict image files, and those in folders and their subfolders.

    Raises:
        ValueError: no image, or one that cannot be read (it is named).
    """
    files = list(_files(paths))
    if not files:
        raise ValueError(f"no image in {', '.join(map(str, paths))} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    predictions = predictor(files)
    if not predictions:
        raise ValueError(f"none of the {len(files)} files can be read; the first: {predictor.skipped[0]}")
    return predictions


def predict_lines(predictor: Predictor, stream: BinaryIO) -> Iterator[list[Prediction]]:
    """Predict the image files that a stream names, one per line, as they come: in batches of what is there already.

    Args:
        predictor: what predicts them; with ``skip_unreadable`` a file that is not there is left out too.
        stream: open for reading; a folder is searched for images.
    """
    for paths in _lines(stream):
        yield from _batches(
            predictor, [file for path in paths for file in (find_images(path)[0] if path.is_dir() else [path])]
        )


def predict_new(predictor: Predictor, folders: Sequence[Path]) -> Iterator[list[Prediction]]:
    """Predict the images of folders, and then what comes there or changes, until SIGINT, SIGTERM or SIGHUP.

    A file is predicted when two looks in a row find it with the same size and time, so not while it is written.

    Args:
        predictor: what predicts them.
        folders: searched with their subfolders, once a second.

    Raises:
        ValueError: a file cannot be read.
    """
    before: dict[Path, tuple[int, int]] = {}
    done: dict[Path, tuple[int, int]] = {}
    with Interruptions("run the same command again") as interruptions:
        interruptions.at_once = False
        while not interruptions.received:
            now = {}
            for file in (file for folder in folders for file in find_images(folder)[0]):
                with suppress(FileNotFoundError):  # it went again
                    now[file] = ((stat := file.stat()).st_size, stat.st_mtime_ns)
            ready = [file for file in now if before.get(file) == now[file] != done.get(file)]
            before, done = now, done | {file: now[file] for file in ready}
            for batch in _batches(predictor, ready):
                yield batch
                if interruptions.received:
                    return
            sleep(1)


def _batches(predictor: Predictor, files: Sequence[Path]) -> Iterator[list[Prediction]]:
    for start in range(0, len(files), predictor.batch_size):
        yield predictor(files[start : start + predictor.batch_size])


def _lines(stream: BinaryIO) -> Iterator[list[Path]]:
    """Yield the paths of whole lines, as many as each read gives."""
    read = getattr(stream, "read1", stream.read)  # does not wait for more than there is
    rest = b""
    while chunk := read(2**16):
        *lines, rest = (rest + chunk).split(b"\n")
        yield [Path(os.fsdecode(line.rstrip(b"\r"))) for line in lines if line.strip()]
    if rest.strip():
        yield [Path(os.fsdecode(rest))]


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
        resizing=loaded.resizing,
    )


def to_csv(predictions: Sequence[Prediction], classes: Sequence[str], *, heading: bool = True) -> str:
    """Return a heading and one row per file: path, class, its probability, then every class's probability.

    Where they are asked for, the decision and the set stand before the last, the set's classes with ``|`` between them.
    """
    asked = [name for name, _ in predictions[0].asked] if predictions else []
    first = [["file", "class", "confidence", *asked, *(f"p({name})" for name in classes)]] if heading else []
    rows = (
        [
            str(p.path),
            p.label,
            f"{p.confidence:.6f}",
            *(value if isinstance(value, str) else "|".join(value) for _, value in p.asked),
            *(f"{q:.6f}" for q in p.probabilities),
        ]
        for p in predictions
    )
    return csv_text([*first, *rows])


def to_json_lines(predictions: Sequence[Prediction], classes: Sequence[str]) -> str:
    """Return one JSON object per line and file."""

    def line(p: Prediction) -> str:
        of_classes = {name: round(q, 6) for name, q in zip(classes, p.probabilities, strict=True)}
        known = {"file": str(p.path), "class": p.label, "confidence": round(p.confidence, 6)}
        return json.dumps(known | dict(p.asked) | {"probabilities": of_classes})

    return "".join(f"{line(p)}\n" for p in predictions)


def count_decisions(predictions: Iterable[Prediction]) -> Counter[str]:
    """Count how often each class, "not sure" and "unknown" was decided for."""
    return Counter(p.label if p.decision is None else p.decision for p in predictions)


def describe_counts(counts: Counter[str], skipped: Sequence[str]) -> str:
    """Return in one line how many images there were, what was decided, and how many could not be read.

    Example:
        >>> describe_counts(Counter({"cat": 2, "not sure": 1}), ["x.png: the file is empty"])
        '3 images: cat (2), not sure (1); 1 unreadable file skipped; the first: x.png: the file is empty'
    """
    often = counts.most_common()
    named = [f"{name} ({n:,})" for name, n in often[:_SHOWN]]
    rest = [f"{len(often) - _SHOWN} others ({sum(n for _, n in often[_SHOWN:]):,})"] if often[_SHOWN:] else []
    said = count_of(counts.total(), "image") + (": " if named else "") + ", ".join([*named, *rest])
    unread = [count_of(len(skipped), "unreadable file") + f" skipped; the first: {skipped[0]}"] if skipped else []
    return "; ".join([said, *unread])


def refuse_image_name(csv: Path, argument: str = "csv") -> None:
    """Refuse to write a table over an image: of two images, the second was meant to be classified too."""
    if csv.suffix.lower() in IMAGE_SUFFIXES:
        raise ArgumentError(argument, f"is {csv}, the name of an image: put `paths` first and name a .{argument} file")
