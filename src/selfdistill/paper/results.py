"""What a table came to: for each cell our numbers by seed, the printed one, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from selfdistill.paper.regime import Regime
from selfdistill.paper.targets import Logged
from selfdistill.records import Statistic, statistic_of


@dataclass(frozen=True)
class Line:
    """One cell.

    Attributes:
        row: what stands on the left.
        column: what stands above.
        unit: of the numbers.
        digits: after the point.
        values: our numbers by seed; under the seed 0 where no network was needed.
        wanted: how many seeds there should be.
        epochs: that the networks were trained; None without one.
        images: that a number was measured on; None where there is no number, or it is of no test images.
        target: path of the printed number in ``targets.json``.
        printed: the number.
        absent: why seeds are missing; empty where none is.
        logged: the number of the published runs' logs.
    """

    row: str
    column: str
    unit: str
    digits: int
    values: Mapping[int, float]
    wanted: int
    epochs: int | None
    images: int | None
    target: str | None
    printed: float | None
    absent: str
    logged: Logged | None = None

    @property
    def statistic(self) -> Statistic | None:
        """Mean, sd and n over seeds; None without a number."""
        return statistic_of(self.values.values())

    @property
    def difference(self) -> float | None:
        """Our mean minus the printed number; None where either is missing."""
        found = self.statistic
        return None if found is None or self.printed is None else found.mean - self.printed

    @property
    def band(self) -> tuple[float, float] | None:
        """Between which numbers our mean agrees with the published logs; None without such."""
        found = self.statistic
        return None if self.logged is None else self.logged.band(found.sd if found else None)

    @property
    def side(self) -> Literal["below", "inside", "above"] | None:
        """Where our mean is beside the band; None where either is missing."""
        found, band = self.statistic, self.band
        if found is None or band is None:
            return None
        return "below" if found.mean < band[0] else "above" if found.mean > band[1] else "inside"


@dataclass(frozen=True)
class Result:
    """A table as it was reproduced.

    Attributes:
        table: its name.
        title: what it shows.
        scale: "smoke", "small", "medium" or "full".
        said: the scale in words.
        protocol: how its numbers are made.
        figure: how it is drawn besides.
        lines: its cells.
        runs: of each run that it was made of: name, recipe hash, date, commit, device, and the commits that it was
            measured with.
        reliability: for Fig. 2, by row and column, each seed's diagram as a dict.
        regimes: how the networks fit their training images, as far as that is known.
    """

    table: str
    title: str
    scale: str
    said: str
    protocol: tuple[str, ...]
    figure: str
    lines: tuple[Line, ...]
    runs: tuple[Mapping[str, Any], ...]
    reliability: Mapping[str, tuple[Mapping[str, Any], ...]]
    regimes: tuple[Regime, ...] = ()

    @property
    def in_papers_regime(self) -> bool:
        """Whether its numbers can be held against the paper's findings: all its networks are in the paper's regime."""
        return bool(self.regimes) and all(regime.is_papers for regime in self.regimes)

    @property
    def compared(self) -> bool:
        """Whether a difference to the printed number means something: at the full scale alone."""
        return self.scale == "full"

    @property
    def beside_logs(self) -> bool:
        """Whether its numbers stand beside those of the published runs' logs."""
        return any(line.logged is not None for line in self.lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, texts and lists, ready for JSON."""
        plain = asdict(self)
        for line, values in zip(self.lines, plain["lines"], strict=True):
            found = line.statistic
            values["mean"], values["sd"], values["n"] = (found.mean, found.sd, found.n) if found else (None, None, 0)
            values["difference"] = line.difference if self.compared else None
            if line.logged is not None:
                values["band"], values["side"] = (line.band, line.side) if self.compared else (None, None)
            values["values"] = {str(seed): value for seed, value in line.values.items()}
        return plain
