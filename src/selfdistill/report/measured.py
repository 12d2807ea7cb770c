"""What was measured of each method, seed by seed: what every section of a report on one measure is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from selfdistill.records import FEW_IMAGES, TOO_FEW_IMAGES, Evaluation, RunRecord, Statistic, paired, statistic_of
from selfdistill.records.evaluation import OODResult
from selfdistill.report.tables import DASH, Column, Table
from selfdistill.text import join_names

T = TypeVar("T")
P = TypeVar("P")


@dataclass(frozen=True)
class Measured(Generic[T]):
    """One method, its position, which decides its colour and shape, and what was measured of it by seed.

    Example:
        >>> method = Measured("CrossEntropy()", 0, {0: "abc", 1: ""})
        >>> (first,) = parts([method], lambda text: text[:1] or None)
        >>> first.by_seed, first.statistic(ord)
        ({0: 'a'}, Statistic(mean=97.0, sd=None, n=1))
    """

    name: str
    index: int
    by_seed: Mapping[int, T]

    @property
    def values(self) -> list[T]:
        """Of every seed, in the order of the runs."""
        return list(self.by_seed.values())

    def statistic(self, pick: Callable[[T], float | None]) -> Statistic | None:
        """Mean, sd and n of a number over the seeds that have it."""
        return statistic_of(map(pick, self.values))

    def against(
        self, other: Measured[T], pick: Callable[[T], float | None]
    ) -> tuple[Statistic | None, tuple[float, float] | None]:
        """Differences of a number to another method's, paired by seed, and their 95 % interval."""

        def numbers(measured: Measured[T]) -> dict[int, float]:
            return {seed: v for seed, values in measured.by_seed.items() if (v := pick(values)) is not None}

        return paired(numbers(self), numbers(other))


def by_method(records: Sequence[RunRecord]) -> list[Measured[RunRecord]]:
    """Some runs by method, in first-seen order."""
    methods = dict.fromkeys(record.method for record in records)
    return [Measured(m, index, {r.seed: r for r in records if r.method == m}) for index, m in enumerate(methods)]


def measured(records: Sequence[RunRecord]) -> list[Measured[Evaluation]]:
    """The evaluations of some runs by method."""
    return parts(by_method(records), lambda run: run.evaluation)


def parts(methods: Iterable[Measured[T]], part: Callable[[T], P | None]) -> list[Measured[P]]:
    """One part of what was measured, as an evaluation's robustness; methods and seeds without it are left out."""
    narrowed = [
        Measured(m.name, m.index, {seed: p for seed, values in m.by_seed.items() if (p := part(values)) is not None})
        for m in methods
    ]
    return [method for method in narrowed if method.by_seed]


def by_ood_set(methods: Sequence[Measured[Evaluation]]) -> dict[str, list[Measured[OODResult]]]:
    """What was measured on each out-of-distribution set, by its name."""
    names = dict.fromkeys(one.name for m in methods for evaluation in m.values for one in evaluation.ood)
    return {name: parts(methods, partial(_ood_result, name=name)) for name in names}


def _ood_result(evaluation: Evaluation, *, name: str) -> OODResult | None:
    return next((one for one in evaluation.ood if one.name == name), None)


def table(methods: Sequence[Measured[T]], columns: Sequence[tuple[str, Column, Callable[[T], float | None]]]) -> Table:
    """One row per method: mean ± sd over its seeds in each column, and how many seeds where there are several runs."""
    counts = [len(method.by_seed) for method in methods]
    several = sum(counts) > 1
    rows = [
        (method.name, *(column.cell(method.statistic(pick)) for _, column, pick in columns), *[str(n)] * several)
        for method, n in zip(methods, counts, strict=True)
    ]
    first = "Method" if several else "Network"
    return Table((first, *(heading for heading, _, _ in columns), *["Seeds"] * several), tuple(rows))


def every(methods: Iterable[Measured[T]], pick: Callable[[T], float | None]) -> str:
    """A number that is the same in all runs, or its range: such as ``1,000`` or ``300 to 1,000``.

    Example:
        >>> every([Measured("A()", 0, {0: [1000], 1: [300]})], lambda values: values[0])
        '300 to 1,000'
    """
    numbers = sorted({v for method in methods for values in method.values if (v := pick(values)) is not None})
    ends = numbers if len(numbers) < 2 else [numbers[0], numbers[-1]]
    return " to ".join(f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in ends) or DASH


def few_images(methods: Iterable[Measured[T]], count: Callable[[T], int]) -> tuple[str, ...]:
    """A sentence where a measure is of too few images to tell networks apart.

    Example:
        >>> few_images([Measured("A()", 0, {0: 20})], int)
        ('Only 20 images: too few images to say which network is better.',)
        >>> few_images([Measured("A()", 0, {0: 100})], int)
        ()
    """
    least = min(count(values) for method in methods for values in method.values)
    if least >= FEW_IMAGES:
        return ()
    return (f"Only {least} image{'s' * (least != 1)}: {TOO_FEW_IMAGES} which network is better.",)


def over_seeds(methods: Iterable[Measured[T]]) -> str:
    """What a curve and its band are, where there are several seeds to speak of.

    Example:
        >>> over_seeds([Measured("A()", 0, {0: None})]), over_seeds([Measured("A()", 0, {0: None, 1: None})])
        ('', ' Mean over seeds; the band reaches from the smallest to the largest.')
    """
    several = any(len(method.by_seed) > 1 for method in methods)
    return " Mean over seeds; the band reaches from the smallest to the largest." if several else ""


def names(methods: Sequence[str], most: int = 4) -> str:
    """Name a few methods; count many.

    Example:
        >>> names(["A()", "B()", "C()"]), names(["A()"] * 5)
        ('A(), B() and C()', '5 methods')
    """
    return f"{len(methods)} methods" if len(methods) > most else join_names(methods)
