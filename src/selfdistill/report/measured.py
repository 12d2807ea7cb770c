"""What was measured of each method, seed by seed: what every section of a report on one measure is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from selfdistill.records import RunRecord, Statistic, paired, statistic_of
from selfdistill.records.metrics import Values
from selfdistill.report.tables import DASH, Column, Table
from selfdistill.text import join_names

Pick = Callable[[Values], float | None]


@dataclass(frozen=True)
class Measured:
    """One method, its position, which decides its colour and shape, and what was measured of it by seed.

    Example:
        >>> method = Measured("CrossEntropy()", 0, {0: {"shift": {"mca": 0.5}}, 1: {"shift": None}})
        >>> (of_shift,) = parts([method], "shift")
        >>> of_shift.by_seed, of_shift.statistic(lambda shift: shift["mca"])
        ({0: {'mca': 0.5}}, Statistic(mean=0.5, sd=None, n=1))
    """

    name: str
    index: int
    by_seed: Mapping[int, Values]

    @property
    def values(self) -> list[Values]:
        """Of every seed, in the order of the runs."""
        return list(self.by_seed.values())

    def statistic(self, pick: Pick) -> Statistic | None:
        """Mean, sd and n of a number over the seeds that have it."""
        return statistic_of(map(pick, self.values))

    def against(self, other: Measured, pick: Pick) -> tuple[Statistic | None, tuple[float, float] | None]:
        """Differences of a number to another method's, paired by seed, and their 95 % interval."""

        def numbers(measured: Measured) -> dict[int, float]:
            return {seed: v for seed, values in measured.by_seed.items() if (v := pick(values)) is not None}

        return paired(numbers(self), numbers(other))


def measured(records: Sequence[RunRecord]) -> tuple[Measured, ...]:
    """The evaluations of some runs by method, in first-seen order."""
    methods = dict.fromkeys(record.method for record in records)
    return tuple(
        Measured(method, index, {r.seed: r.evaluation for r in records if r.method == method})
        for index, method in enumerate(methods)
    )


def parts(methods: Iterable[Measured], name: str) -> list[Measured]:
    """One part of each evaluation, as "robustness"; methods and seeds without it are left out."""
    return _narrowed(methods, lambda evaluation: evaluation.get(name))


def by_ood_set(methods: Sequence[Measured]) -> dict[str, list[Measured]]:
    """What was measured on each out-of-distribution set, by its name."""
    found = dict.fromkeys(one["name"] for m in methods for values in m.values for one in values.get("ood") or ())
    return {name: _narrowed(methods, partial(_set, name=name)) for name in found}


def table(methods: Sequence[Measured], columns: Sequence[tuple[str, Column, Pick]]) -> Table:
    """One row a method: mean ± sd over its seeds in each column, and how many seeds where there are several runs.

    Args:
        methods: the rows.
        columns: heading, how the number is written, and the number.
    """
    counts = [len(method.by_seed) for method in methods]
    several = sum(counts) > 1
    rows = [
        (method.name, *(column.cell(method.statistic(pick)) for _, column, pick in columns), *[str(n)] * several)
        for method, n in zip(methods, counts, strict=True)
    ]
    first = "Method" if several else "Network"
    return Table((first, *(heading for heading, _, _ in columns), *["Seeds"] * several), tuple(rows))


def every(methods: Iterable[Measured], pick: Pick) -> str:
    """A number that is the same in all runs, or its range: such as ``1,000`` or ``300 to 1,000``.

    Example:
        >>> every([Measured("A()", 0, {0: {"n": 1000}, 1: {"n": 300}})], lambda values: values["n"])
        '300 to 1,000'
    """
    numbers = sorted({v for method in methods for values in method.values if (v := pick(values)) is not None})
    ends = numbers if len(numbers) < 2 else [numbers[0], numbers[-1]]
    return " to ".join(f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in ends) or DASH


def over_seeds(methods: Iterable[Measured]) -> str:
    """What a curve and its band are, where there are several seeds to speak of.

    Example:
        >>> over_seeds([Measured("A()", 0, {0: {}})]), over_seeds([Measured("A()", 0, {0: {}, 1: {}})])
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
    if len(methods) > most:
        return f"{len(methods)} methods"
    return join_names(methods)


def _narrowed(methods: Iterable[Measured], part: Callable[[Values], Values | None]) -> list[Measured]:
    narrowed = [
        replace(m, by_seed={seed: found for seed, values in m.by_seed.items() if (found := part(values)) is not None})
        for m in methods
    ]
    return [m for m in narrowed if m.by_seed]


def _set(evaluation: Values, *, name: str) -> Values | None:
    return next((one for one in evaluation.get("ood") or () if one["name"] == name), None)
