"""From 75 accuracies to what a reader asks for: by corruption, by severity, and the mean over the fifteen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from selfdistill.evaluate.corruptions.table import CORRUPTIONS, SEVERITIES

PUBLISHED = "published arrays"
OWN = "own corruptions"


@dataclass(frozen=True)
class CorruptionAccuracy:
    """Accuracy under corruption; every rate is a fraction in [0, 1].

    Attributes:
        accuracy: by corruption, in the order of Table 6, the accuracies at severity 1, 2 ... 5.
        n: images at each severity of each corruption.
        source: ``"published arrays"`` or ``"own corruptions"``: the second is a substitute, and does not stand beside
            a printed number.
    """

    accuracy: Mapping[str, tuple[float, ...]]
    n: int
    source: str

    @property
    def per_corruption(self) -> dict[str, float]:
        """Mean over the five severities: a row of Table 6."""
        return {name: fmean(values) for name, values in self.accuracy.items()}

    @property
    def per_severity(self) -> tuple[float, ...]:
        """Mean over the fifteen corruptions, at severity 1, 2 ... 5."""
        return tuple(fmean(values[at] for values in self.accuracy.values()) for at in range(len(SEVERITIES)))

    @property
    def mca(self) -> float:
        """Mean corruption accuracy, Table 6's last row: over the fifteen corruptions of the means over severities.

        Accuracy, not the mean corruption error (mCE) of other papers, which divides by another network's errors.
        """
        return fmean(self.per_corruption.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON; what follows from the accuracies is written out beside them."""
        return {
            "source": self.source,
            "n": self.n,
            "mca": self.mca,
            "per_severity": list(self.per_severity),
            "accuracy": {name: list(values) for name, values in self.accuracy.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CorruptionAccuracy":
        """The inverse of `to_dict`, exactly."""
        return summarise(values["accuracy"], n=values["n"], source=values["source"])


def summarise(accuracy: Mapping[str, Sequence[float]], *, n: int, source: str) -> CorruptionAccuracy:
    """Gather the accuracies of the fifteen corruptions; what else is given is left out of every mean.

    The published sets hold four corruptions more, and scripts that average all nineteen report another number than
    Table 6's mCA, which is the mean of its fifteen rows.

    Args:
        accuracy: by corruption, five fractions: severity 1 first.
        n: images at each severity, >= 1.
        source: ``PUBLISHED`` or ``OWN``.

    Raises:
        ValueError: a corruption is missing, has not five accuracies, or one is not a fraction; or n or source is wrong.

    Example:
        >>> result = summarise({name: [0.9, 0.8, 0.7, 0.6, 0.5] for name in CORRUPTIONS}, n=10, source=OWN)
        >>> round(result.mca, 12), [round(value, 12) for value in result.per_severity]
        (0.7, [0.9, 0.8, 0.7, 0.6, 0.5])
    """
    missing = [name for name in CORRUPTIONS if name not in accuracy]
    if missing:
        raise ValueError(f"accuracy: {', '.join(missing)} missing; the mean is over all {len(CORRUPTIONS)} corruptions")
    if n < 1:
        raise ValueError(f"n: {n}, expected at least 1 image")
    if source not in (PUBLISHED, OWN):
        raise ValueError(f"source: {source!r}, expected {PUBLISHED!r} or {OWN!r}")
    for name in CORRUPTIONS:
        values = accuracy[name]
        if len(values) != len(SEVERITIES) or not all(0 <= value <= 1 for value in values):  # NaN is refused as well
            raise ValueError(f"accuracy: {name} has {list(values)}, expected five fractions in [0, 1]")
    return CorruptionAccuracy({name: tuple(map(float, accuracy[name])) for name in CORRUPTIONS}, n, source)
