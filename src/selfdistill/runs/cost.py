"""What a method costs: the time and the memory of its training step, beside those of cross-entropy's.

    time = median over pairs of steps of  seconds(method) / seconds(cross-entropy)

The two steps of a pair follow each other in one process, now the one first and now the other: what else the machine
does slows both.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from selfdistill.config.train_config import MAX_IMAGE_SIZE
from selfdistill.errors import check_range
from selfdistill.method import Method
from selfdistill.methods import CrossEntropy
from selfdistill.models import available, build
from selfdistill.models.build import made_for
from selfdistill.network import default_device
from selfdistill.progress import OnProgress, Progress, no_progress, progress_bar
from selfdistill.timing.profiler import StepProfiler
from selfdistill.timing.synthetic import example_methods, make_batch
from selfdistill.training.run import machine

_PAIRS = (3, 50)  # at least, at most
_CLASSES = 100


@dataclass(frozen=True)
class Cost:
    """What a method's step takes.

    Attributes:
        time: as a share of a cross-entropy step's; 1.0 is as long.
        memory: likewise.
        extra_parameters: what the method adds in training, gone afterwards.
        pairs: of steps that ``time`` is the median of.
    """

    time: float
    memory: float
    extra_parameters: int
    pairs: int


@dataclass(frozen=True)
class Costs:
    """What several methods cost with one model.

    Attributes:
        seconds: of a cross-entropy step, the median.
        bytes: of a cross-entropy step; see :class:`selfdistill.timing.profiler.StepProfiler`.
        device: what it was measured on.
        methods: by name, those that could be measured.
        refused: by name, why this model cannot be trained with it, in short.
    """

    seconds: float
    bytes: int
    device: torch.device
    methods: dict[str, Cost]
    refused: dict[str, str]


def measure_costs(
    model: nn.Module,
    methods: Mapping[str, Method],
    *,
    batch_size: int = 64,
    classes: int = 100,
    image_size: int = 32,
    device: torch.device | str = "cpu",
    seconds: float = 20.0,
    progress: OnProgress = no_progress,
) -> Costs:
    """Measure what each method's step costs: forward, backward and SGD with momentum, on noise.

    Args:
        model: a classifier of images for ``classes`` classes; it is copied.
        methods: by name; they are used up.
        batch_size: B, the images of ``x``; what a method needs further comes on top.
        seconds: for all methods together, by and large; each gets 3 pairs of steps at least.

    Raises:
        ValueError: the model cannot be trained with cross-entropy on such a batch.
        RuntimeError: likewise.
    """
    device = torch.device(device)

    def trained_with(method: Method) -> StepProfiler:
        batch = make_batch(method.needs, batch_size=batch_size, classes=classes, image_size=image_size, device=device)
        with warnings.catch_warnings():
            # It is not to learn: neither a second dropout nor a peer's first weights matter.
            warnings.filterwarnings("ignore", message="the model drops out its features itself")
            warnings.filterwarnings("ignore", message="DML draws its peer's weights layer by layer")
            return StepProfiler(model, method, batch)

    baseline = trained_with(CrossEntropy())
    costs: dict[str, Cost] = {}
    refused: dict[str, str] = {}
    taken = [baseline.seconds()]
    for done, (name, method) in enumerate(methods.items()):
        progress(Progress("measuring methods", done, len(methods), "methods", detail=name))
        try:
            training = trained_with(method)
        except (ValueError, RuntimeError) as error:
            refused[name] = _in_short(error)
            continue
        pairs = _pairs(baseline, training, seconds / len(methods))
        taken += [of_baseline for of_baseline, _ in pairs]
        costs[name] = Cost(
            time=median(of_method / of_baseline for of_baseline, of_method in pairs),
            memory=training.bytes / baseline.bytes,
            extra_parameters=training.extra_parameters,
            pairs=len(pairs),
        )
    return Costs(median(taken), baseline.bytes, device, costs, refused)


def prepare_costs(
    model: str, *, width: int | None, image_size: int | None, batch_size: int
) -> Callable[[], tuple[str, Costs]]:
    """Build a network; return what measures every method with it, shows its progress, and returns words and costs.

    Args:
        model: as for :func:`selfdistill.models.build`.
        width: of our networks; None is 16.
        image_size: None is what the network is made for: 32 for our CIFAR networks, 224 for others.
        batch_size: at least 2.

    Raises:
        ValueError: there is no such network, or it cannot be trained on such images.
    """
    check_range("batch_size", batch_size, 2, 10**5)
    check_range("image_size", image_size, 1, MAX_IMAGE_SIZE)
    if model in available() and width is None:
        width = 16
    if image_size is None:
        image_size = made_for(model)
    network, methods = build(model, _CLASSES, width=width), example_methods()
    device = default_device()
    wide = "" if width is None else f" of width {width}"
    setting = f"{model}{wide}, {batch_size} images of {image_size} px, {_CLASSES} classes, {_in_words(device)}"

    def measure() -> tuple[str, Costs]:
        with machine(None), progress_bar("measuring methods") as progress:
            return setting, measure_costs(
                network,
                methods,
                batch_size=batch_size,
                classes=_CLASSES,
                image_size=image_size,
                device=device,
                progress=progress,
            )

    return measure


def _pairs(baseline: StepProfiler, training: StepProfiler, seconds: float) -> list[tuple[float, float]]:
    """Return the seconds of steps in pairs, cross-entropy's and the method's."""
    pairs: list[tuple[float, float]] = []
    least, most = _PAIRS
    started = time.perf_counter()
    while len(pairs) < least or (len(pairs) < most and time.perf_counter() - started < seconds):
        if len(pairs) % 2:
            of_method = training.seconds()
            pairs.append((baseline.seconds(), of_method))
        else:
            of_baseline = baseline.seconds()
            pairs.append((of_baseline, training.seconds()))
    return pairs


def _in_words(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "the GPU of this Mac"
    threads = torch.get_num_threads()
    return "1 CPU thread" if threads == 1 else f"{threads} CPU threads"


def _in_short(error: Exception) -> str:
    """Return a message up to its remedy."""
    return " ".join(str(error).split(";")[0].split())
