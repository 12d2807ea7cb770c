"""A detector, image by image, against the boxes that are there."""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from selfdistill.detect.batches import Target, in_order
from selfdistill.detect.loop import TELL_SECONDS
from selfdistill.detect.metric import AveragePrecision, average_precision
from selfdistill.detect.session import Session
from selfdistill.tap import evaluation_mode
from selfdistill.train.progress import Callback, Update


def measure(session: Session, tell: Callable[[int], None] | None = None) -> AveragePrecision:
    """Measure a detector, trained or not, on the images that its data say.

    Args:
        session: of the detector.
        tell: is called now and then with how many images are done.
    """
    detector = session.detector

    def detected() -> Iterator[tuple[dict[str, Tensor], Target]]:
        told = time.perf_counter()
        pictures = in_order(session.data.measured.images, device=session.device, workers=session.workers)
        for done, (images, targets) in enumerate(pictures, start=1):
            yield detector(images)[0], targets[0]
            if tell is not None and time.perf_counter() - told >= TELL_SECONDS:
                told = time.perf_counter()
                tell(done)

    with evaluation_mode(detector), torch.inference_mode():
        return average_precision(detected())


def measure_and_tell(session: Session, progress: Callback | None) -> AveragePrecision:
    """Measure a trained detector and tell how far that is.

    Args:
        session: of the detector.
        progress: is told, or None.
    """
    part, epochs = session.data.measured, session.recipe.epochs or 0

    def tell(done: int) -> None:
        if progress is not None:
            progress(
                Update(
                    kind="evaluate",
                    epoch=epochs,
                    epochs=epochs,
                    step=done,
                    steps=len(part),
                    loss=0.0,
                    terms={},
                    metrics={},
                    images_per_second=0.0,
                    seconds_left=0.0,
                    measuring=f"mAP on {part.name}, {done:,} of {len(part):,} images",
                )
            )

    return measure(session, tell)
