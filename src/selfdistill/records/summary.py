"""What several records say together: mean, sd and n of each method, and differences paired by seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from selfdistill.records.metrics import METRICS
from selfdistill.records.record import TUNED, RunRecord
from selfdistill.text import quote

TOO_FEW_IMAGES = "too few images to say"


@dataclass(frozen=True)
class Statistic:
    """Mean and standard deviation (n - 1 in the denominator; None for one seed) over n seeds."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """A method minus the first method in one metric, seed by seed.

    Attributes:
        method, baseline, metric: what is compared.
        mean, sd, n: of the n paired differences; sd is None for one pair, mean None for none.
        low, high: 95 % interval of the mean by Student's t with n - 1 degrees of freedom; None below two pairs.
        verdict: "higher", "lower" or "no clear difference" from the interval; or "one seed: no interval"; "no seed in
            common"; or `TOO_FEW_IMAGES`.
        effect: "better", "worse" or "unclear", by whether more or less of the metric is better.
    """

    method: str
    baseline: str
    metric: str
    mean: float | None
    sd: float | None
    n: int
    low: float | None
    high: float | None
    verdict: str
    effect: str


@dataclass(frozen=True)
class Summary:
    """What the records of one comparison say together.

    Attributes:
        methods: reprs in first-seen order; the first is the baseline.
        seeds: for each method, its seeds in ascending order.
        statistics: by (method, metric); a metric that no run of a method has is absent.
        differences: by (method, metric), for every method but the first; none where a metric was not measured in the
            same way in all runs that have it.
    """

    methods: tuple[str, ...]
    seeds: dict[str, tuple[int, ...]]
    statistics: dict[tuple[str, str], Statistic]
    differences: dict[tuple[str, str], Difference]


def summarise(records: Iterable[RunRecord], *, tuned: bool = False) -> Summary:
    """Mean, sd and n per method, and differences to the first method paired by seed, with 95 % intervals.

    Args:
        records: of runs that differ in method and seed alone.
        tuned: each method may have its own `TUNED` rates.

    Raises:
        ValueError: no record; runs that may not be compared (the differing fields are named); a seed twice in a method.
    """
    runs = list(records)
    if not runs:
        raise ValueError("records: none given, there is nothing to summarise")
    for run in runs[1:]:
        _check_comparable(runs[0], run, TUNED if tuned else frozenset())
    by_method: dict[str, dict[int, RunRecord]] = {}
    for run in runs:
        seeds = by_method.setdefault(run.method, {})
        if run.seed in seeds:
            raise ValueError(
                f"records: {run.method} has seed {run.seed} twice ({seeds[run.seed].name}, {run.name}); keep one"
            )
        seeds[run.seed] = run
    methods = tuple(by_method)
    values = {
        (method, metric): {seed: v for seed, run in sorted(of_seed.items()) if (v := run.metric(metric)) is not None}
        for method, of_seed in by_method.items()
        for metric in METRICS
    }
    return Summary(
        methods=methods,
        seeds={method: tuple(sorted(of_seed)) for method, of_seed in by_method.items()},
        statistics={
            key: statistic
            for key, of_seed in values.items()
            if (statistic := statistic_of(of_seed.values())) is not None
        },
        differences={
            (method, metric): _difference(
                method,
                methods[0],
                metric,
                values[method, metric],
                values[methods[0], metric],
                _few_images(runs, metric),
            )
            for method in methods[1:]
            for metric in METRICS
            if values[method, metric] and values[methods[0], metric] and _measured_alike(runs, metric)
        },
    )


def statistic_of(values: Iterable[float | None]) -> Statistic | None:
    """Mean, sd and n of the values that there are; None where there is none.

    Example:
        >>> statistic_of([1.0, None, 3.0])
        Statistic(mean=2.0, sd=1.4142135623730951, n=2)
    """
    there = [value for value in values if value is not None]
    if not there:
        return None
    return Statistic(statistics.fmean(there), statistics.stdev(there) if len(there) > 1 else None, len(there))


def paired(
    ours: Mapping[int, float], theirs: Mapping[int, float]
) -> tuple[Statistic | None, tuple[float, float] | None]:
    """Differences of the seeds in common, and the 95 % interval of their mean by Student's t.

    Returns:
        Mean, sd and n of the pairs, None without a pair; and the interval's ends, None below two pairs.

    Example:
        >>> paired({0: 0.5, 1: 0.75}, {0: 0.25, 1: 0.5})
        (Statistic(mean=0.25, sd=0.0, n=2), (0.25, 0.25))
    """
    found = statistic_of(ours[seed] - theirs[seed] for seed in ours if seed in theirs)
    if found is None or found.sd is None:
        return found, None
    from scipy.special import stdtrit  # here, so that writing a record needs the standard library alone

    half = float(stdtrit(found.n - 1, 0.975)) * found.sd / math.sqrt(found.n)
    return found, (found.mean - half, found.mean + half)


def _measured_alike(runs: Iterable[RunRecord], metric: str) -> bool:
    return len({run.protocol(metric) for run in runs if run.metric(metric) is not None}) == 1


def _few_images(runs: Iterable[RunRecord], metric: str) -> bool:
    return any(METRICS[metric].is_of_few_images(run) for run in runs if run.metric(metric) is not None)


def _difference(
    method: str,
    baseline: str,
    metric: str,
    ours: Mapping[int, float],
    theirs: Mapping[int, float],
    few_images: bool,
) -> Difference:
    found, interval = paired(ours, theirs)
    if found is None:
        return Difference(method, baseline, metric, None, None, 0, None, None, "no seed in common", "unclear")
    if interval is None:
        return Difference(method, baseline, metric, found.mean, None, 1, None, None, "one seed: no interval", "unclear")
    low, high = interval
    if few_images:
        return Difference(method, baseline, metric, found.mean, found.sd, found.n, low, high, TOO_FEW_IMAGES, "unclear")
    verdict = "higher" if low > 0 else "lower" if high < 0 else "no clear difference"
    better = METRICS[metric].better
    effect = "unclear" if better is None or low <= 0 <= high else "better" if verdict == better else "worse"
    return Difference(method, baseline, metric, found.mean, found.sd, found.n, low, high, verdict, effect)


def _check_comparable(first: RunRecord, other: RunRecord, left_out: Collection[str]) -> None:
    if None not in (known := [first.data.fingerprint, other.data.fingerprint]) and known[0] != known[1]:
        raise ValueError(f"records: {first.name} and {other.name} cannot be compared: their images are different")
    if first.key_without(left_out) == other.key_without(left_out):
        return
    ours, theirs = first.compared(), other.compared()
    differing = [
        f"{part}.{key}: {quote(ours[part].get(key))} and {quote(theirs[part].get(key))}"
        for part in ours
        for key in dict.fromkeys([*ours[part], *theirs[part]])
        if ours[part].get(key) != theirs[part].get(key) and key not in left_out
    ]
    raise ValueError(f"records: {first.name} and {other.name} cannot be compared ({'; '.join(differing)})")
