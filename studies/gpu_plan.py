"""What the GPU program trains, in which order, and whether a run that is begun now would be finished in time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from selfdistill.methods import parse_method
from selfdistill.paper.scales import SEEDS, PaperConfig, Scale, Training, dataset_size
from selfdistill.paper.tables import METHODS
from selfdistill.runs.grid import PlannedRun

START = 2
"""Runs that are begun together before anything was measured: cross-entropy and SD-Dropout of one seed."""

GAIN = 1.05
"""One run more stays if all together become faster by this factor: below, they only wait for each other."""

SLACK = 1.1
"""An estimate's: methods cost a little more than their passes."""

BEGIN = 60.0
"""Seconds for a run's start, its compiling and its measuring."""

EPOCHS_MEASURED = 3


@dataclass(frozen=True)
class Planned:
    """A run that is to be made.

    Attributes:
        training: of the paper's tables.
        cell: its name and its recipe.
        passes: forward-and-backward passes of the network over each image.
        scale: of the paper's tables.
    """

    training: Training
    cell: PlannedRun
    passes: float
    scale: Scale

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.cell.name

    @property
    def epoch(self) -> float:
        """An epoch's work, in passes of an image."""
        return self.passes * dataset_size(self.training.data, self.scale).train

    def work(self, epochs_done: int) -> float:
        """Return what is left of it, in passes of an image."""
        assert self.cell.recipe.epochs is not None
        return self.epoch * (self.cell.recipe.epochs - epochs_done)


def order(config: PaperConfig, epochs: int | None = None) -> list[Planned]:
    """Return the runs of Table 1 on CIFAR-100 and standard dropout, those that say most first.

    SD-Dropout and cross-entropy come first, seed by seed; then the other methods, each with its sum, all of them with
    one seed before the next; label smoothing and dropout last. At the scale "medium": cross-entropy, SD-Dropout,
    label smoothing and dropout, on CIFAR-100 and then on Caltech-101.

    Args:
        config: its recipes.
        epochs: of a rehearsal, in the place of the recipe's.
    """
    seeds = config.seeds or SEEDS
    first = METHODS["cross_entropy"][:0:-1]
    others = [method for key in ("cs_kd", "ddgsd", "byot", "dml") for method in METHODS[key][1:]]
    last = [*METHODS["label_smoothing"][1:], "Dropout()"]
    groups = [("cifar100", group) for group in (first, others, last)]
    if config.scale == "medium":
        groups = [(data, [*first, "LabelSmoothing()", "Dropout()"]) for data in ("cifar100", "caltech101")]
    runs = [(Training(method, data), seed) for data, group in groups for seed, method in product(seeds, group)]
    planned = [Planned(one, config.plan_run(one, seed), passes_of(one.method), config.scale) for one, seed in runs]
    if epochs is None:
        return planned
    return [
        replace(one, cell=PlannedRun(one.name, replace(one.cell.recipe, epochs=epochs, keep_epochs=())))
        for one in planned
    ]


def passes_of(method: str) -> float:
    """Return a method's forward-and-backward passes over each image; one without a backward pass counts 1/3.

    Example:
        >>> passes_of("SDDropout()"), passes_of("DML() + SDDropout(weight=0.1)"), round(passes_of("CSKD()"), 2)
        (1, 2, 1.33)
    """
    needs = parse_method(method).needs
    return needs.views * needs.passes + needs.peer + (1 / 3 if needs.pair else 0)


def at_once(rates: Mapping[int, float], most: int) -> int:
    """Return how many runs to train side by side: one more as long as all together become faster by `GAIN`.

    Args:
        rates: passes of an image a second of all runs together, by their number, as far as it was measured.
        most: at most so many.

    Example:
        >>> at_once({}, 4), at_once({2: 100.0}, 4), at_once({2: 100.0, 3: 120.0}, 4), at_once({2: 100.0, 3: 103.0}, 4)
        (2, 3, 4, 2)
    """
    number = min(START, most)
    while number < most and number in rates and _pays(rates, number):
        number += 1
    return number if _pays(rates, number) else number - 1


def _pays(rates: Mapping[int, float], number: int) -> bool:
    fewer, so_many = rates.get(number - 1), rates.get(number)
    return fewer is None or so_many is None or so_many >= GAIN * fewer


def seconds_to_finish(work: Sequence[float], rates: Mapping[int, float]) -> float:
    """Return how long runs take side by side until the last is done; the GPU is shared out evenly among those left.

    Args:
        work: what is left of each, in passes of an image.
        rates: as for `at_once`, of one number at least; where a number is missing, that of the nearest.

    Example:
        >>> seconds_to_finish([100, 300], {1: 10, 2: 20})  # ten seconds side by side, then twenty alone
        30.0
    """
    seconds, done = 0.0, 0.0
    for finished, until in enumerate(sorted(work)):
        left = len(work) - finished
        rate = rates[min(rates, key=lambda number: abs(number - left))]
        seconds += (until - done) * left / rate
        done = until
    return seconds


def fits(work: Sequence[float], rates: Mapping[int, float], seconds: float) -> bool:
    """Return whether runs are all finished within so many seconds; before anything was measured, they are tried."""
    return not rates or SLACK * seconds_to_finish(work, rates) + BEGIN <= seconds


class Pace:
    """How long an epoch takes in each of several runs that train side by side, from when their epochs ended.

    An epoch in which one of them was only starting, or compiling, is not counted: the clock starts when each has ended
    an epoch beside the others, and stops when each has ended `EPOCHS_MEASURED` more.

    Args:
        epochs: that each had done when this company came together.
    """

    def __init__(self, epochs: Mapping[str, int]):
        self.before = dict(epochs)
        self._first: dict[str, tuple[int, float]] = {}

    def seconds_per_epoch(self, ends: Mapping[str, tuple[int, float]]) -> dict[str, float] | None:
        """Return each run's, once they are known.

        Args:
            ends: of each run the epochs done, and when the last of them ended.
        """
        if not self._first:
            if all(epochs > self.before[name] for name, (epochs, _) in ends.items()):
                self._first = dict(ends)
            return None
        if any(epochs < self._first[name][0] + EPOCHS_MEASURED for name, (epochs, _) in ends.items()):
            return None
        return {
            name: (ended - self._first[name][1]) / (epochs - self._first[name][0])
            for name, (epochs, ended) in ends.items()
        }
