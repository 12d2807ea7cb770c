"""What several records say together: mean, sd and n of each method, and differences paired by seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from selfdistill.records.record import RunRecord

# +1: more is better; -1: less is better; 0: neither is.
DIRECTION = {
    "top1": 1, "top5": 1, "nll": -1, "brier": -1, "ece": -1, "gap": 0, "abs_gap": -1, "train_top1": 0, "best_top1": 1,
    "peer_top1": 0, "seconds_per_epoch": -1, "images_per_second": 1, "extra_parameters": -1, "peak_memory_bytes": -1,
}  # fmt: skip


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
        verdict: "higher", "lower" or "no clear difference" from the interval; or "one seed: no interval"; or "no seed
            in common".
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
        differences: by (method, metric), for every method but the first.
    """

    methods: tuple[str, ...]
    seeds: dict[str, tuple[int, ...]]
    statistics: dict[tuple[str, str], Statistic]
    differences: dict[tuple[str, str], Difference]


def summarise(records: Iterable[RunRecord]) -> Summary:
    """Mean, sd and n per method, and differences to the first method paired by seed, with 95 % intervals.

    Raises:
        ValueError: no record; runs that may not be compared (the differing fields are named); a seed twice in a method.
    """
    runs = list(records)
    if not runs:
        raise ValueError("records: none given, there is nothing to summarise")
    for run in runs[1:]:
        _check_comparable(runs[0], run)
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
        for metric in DIRECTION
    }
    return Summary(
        methods=methods,
        seeds={method: tuple(sorted(of_seed)) for method, of_seed in by_method.items()},
        statistics={
            key: Statistic(
                statistics.fmean(of_seed.values()),
                statistics.stdev(of_seed.values()) if len(of_seed) > 1 else None,
                len(of_seed),
            )
            for key, of_seed in values.items()
            if of_seed
        },
        differences={
            (method, metric): _difference(
                method, methods[0], metric, values[method, metric], values[methods[0], metric]
            )
            for method in methods[1:]
            for metric in DIRECTION
            if values[method, metric] and values[methods[0], metric]
        },
    )


def _difference(
    method: str, baseline: str, metric: str, ours: Mapping[int, float], theirs: Mapping[int, float]
) -> Difference:
    pairs = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    n = len(pairs)
    if n < 2:
        verdict = "one seed: no interval" if n else "no seed in common"
        return Difference(method, baseline, metric, pairs[0] if n else None, None, n, None, None, verdict, "unclear")
    from scipy.special import stdtrit  # here, so that writing a record needs the standard library alone

    mean, sd = statistics.fmean(pairs), statistics.stdev(pairs)
    half = float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n)
    low, high = mean - half, mean + half
    sign = 1 if low > 0 else -1 if high < 0 else 0
    verdict = {1: "higher", -1: "lower", 0: "no clear difference"}[sign]
    effect = {1: "better", -1: "worse", 0: "unclear"}[sign * DIRECTION[metric]]
    return Difference(method, baseline, metric, mean, sd, n, low, high, verdict, effect)


def _check_comparable(first: RunRecord, other: RunRecord) -> None:
    if first.comparable_key == other.comparable_key:
        return
    ours, theirs = first.compared(), other.compared()
    differing = [
        f"{part}.{key}: {ours[part].get(key)!r} and {theirs[part].get(key)!r}"
        for part in ours
        for key in dict.fromkeys([*ours[part], *theirs[part]])
        if ours[part].get(key) != theirs[part].get(key)
    ]
    raise ValueError(f"records: {first.name} and {other.name} cannot be compared ({'; '.join(differing)})")
