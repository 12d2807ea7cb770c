"""Images to train on and to be scored on: named sets, folders, arrays, and the batches made of them."""

from selfdistill.data.loading import TrainLoader, eval_batches
from selfdistill.data.named import NAMED_SETS
from selfdistill.data.sets import ImageData, Split
from selfdistill.data.sources import load_data
from selfdistill.data.unlabelled import Unlabelled, load_unlabelled

__all__ = [
    "NAMED_SETS",
    "ImageData",
    "Split",
    "TrainLoader",
    "Unlabelled",
    "eval_batches",
    "load_data",
    "load_unlabelled",
]
