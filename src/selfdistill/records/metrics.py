"""METRICS, the one registry of metrics: what each is called, where a record holds it, which way is better, where it is
shown.

A new metric is its function in `evaluate`, whose value the evaluation holds, and one entry here. Summaries, tables,
verdicts, figures and studies read the entry.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Values = Mapping[str, Any]
"""An evaluation or a part of one, by the names of its fields."""

Source: TypeAlias = object
"""What a metric is read in: a `RunRecord`, or `{"evaluation": ...}` of a network without a run."""

Place = Literal["quality", "training", "narrow", "runs", "calibration", "differences", "figure", "digest"]
"""Where a metric is shown: the tables of quality and of training; the table on a narrow terminal; the table of every
run; the table of calibration; the table and the figure of paired differences; the summary of a single network. A metric
of "quality" is also in the table of every run and in the summary of a single network."""

DETECTOR = "ODIN fixed"
"""The detector of the OOD metrics: its eps was chosen on nobody's images."""
PUBLISHED = "published arrays"
"""Source of the corrupted images that compare with Table 6."""

_EPS = 2 / 255  # of the metrics that stand for a whole curve over eps
_SCALES = {"": 1.0, "%": 100.0, "MiB": 2.0**-20}


@dataclass(frozen=True)
class Metric:
    """One number of a run.

    Attributes:
        name: key in METRICS and `RunRecord.metric`.
        title: heading of its column.
        read: its value in a record; None where it was not measured.
        better: "higher" or "lower"; None where neither is.
        unit: "%" of a fraction, "MiB" of bytes, or none.
        digits: after the decimal point, in that unit.
        signed: whether a plus sign is written.
        spread: whether the sd over seeds is written.
        note: what it is.
        how: how a single network's value was measured, in words (default: the note).
        protocol: what must be equal in two records for a difference to mean anything.
        places: where it is shown.
        verdict: where a method is better or worse by it, for the verdict's last sentence; "": not mentioned there.
    """

    name: str
    title: str
    read: Callable[[Source], float | None]
    better: Literal["higher", "lower"] | None = None
    unit: Literal["", "%", "MiB"] = ""
    digits: int = 3
    signed: bool = False
    spread: bool = True
    note: str = ""
    how: Callable[[Values], str] | None = None
    protocol: Callable[[Source], object] = lambda record: None
    places: tuple[Place, ...] = ()
    verdict: str = ""

    @property
    def scale(self) -> float:
        """Factor from the record's unit to `unit`."""
        return _SCALES[self.unit]


def read_at(*path: str) -> Callable[[Source], Any]:
    """A reader of one field of a record; it returns None where the field or a part above it is missing.

    Example:
        >>> of_ece = read_at("evaluation", "scaled", "ece")
        >>> of_ece({"evaluation": {"scaled": {"ece": 0.5}}}), of_ece({"evaluation": {"scaled": None}})
        (0.5, None)
    """

    def read(record: Source) -> Any:
        value: Any = record
        for name in path:
            if value is not None:
                value = value.get(name) if isinstance(value, Mapping) else getattr(value, name)
        return value

    return read


def same(part: str, *names: str) -> Callable[[Source], tuple[object, ...]]:
    """A reader of several fields of a part of the evaluation.

    Example:
        >>> same("shift", "source", "n")({"evaluation": {"shift": {"source": "own corruptions", "n": 1000}}})
        ('own corruptions', 1000)
    """
    return lambda record: tuple(read_at("evaluation", part, name)(record) for name in names)


def accuracy_at(robustness: Values | None, attack: str, eps: float) -> float | None:
    """Accuracy under an attack at one eps; None where that eps was not measured.

    Example:
        >>> accuracy_at({"eps": [1 / 255, 2 / 255], "pgd": [0.5, 0.25]}, "pgd", 2 / 255)
        0.25
    """
    if robustness is None:
        return None
    pairs = zip(robustness["eps"], robustness[attack], strict=True)
    return next((float(accuracy) for at, accuracy in pairs if math.isclose(at, eps, rel_tol=1e-6)), None)


def metric_of(evaluation: Values, name: str) -> float | None:
    """A metric of an evaluation that belongs to no run; None where it was not measured.

    Raises:
        KeyError: no such metric.

    Example:
        >>> metric_of({"gap": -0.1, "shift": {"mca": 0.5}}, "mca"), metric_of({"gap": -0.1}, "mca")
        (0.5, None)
        >>> metric_of({"gap": -0.1}, "abs_gap")
        0.1
    """
    return METRICS[name].read({"evaluation": evaluation})


def _absolute_gap(record: Source) -> float | None:
    gap = read_at("evaluation", "gap")(record)
    return None if gap is None else abs(gap)


def _under(attack: str) -> Callable[[Source], float | None]:
    return lambda record: accuracy_at(read_at("evaluation", "robustness")(record), attack, _EPS)


def _over_ood_sets(metric: str) -> Callable[[Source], float | None]:
    """Mean over the OOD sets, each weighing the same."""

    def read(record: Source) -> float | None:
        values = [
            one["detectors"][DETECTOR]["metrics"][metric]
            for one in read_at("evaluation", "ood")(record) or ()
            if DETECTOR in one["detectors"]
        ]
        return statistics.fmean(values) if values else None

    return read


def _ood_protocol(record: Source) -> object:
    names = ("name", "n", "prepared", "temperature")
    return tuple(
        (*(one.get(name) for name in names), one["detectors"].get(DETECTOR, {}).get("eps"))
        for one in read_at("evaluation", "ood")(record) or ()
    )


def _peer_top1(record: Source) -> float | None:
    log = read_at("log")(record)
    return read_at("peer_top1")(log[-1]) if log else None


def _how_scaled(evaluation: Values) -> str:
    return f"T = {statistics.fmean(evaluation['scaled']['temperatures']):.2f}, fitted on the other half: a reference"


def _how_attacked_as_printed(evaluation: Values) -> str:
    attacks = evaluation["robustness"]
    return f"{attacks['n']:,} images; eps {attacks['paper_eps']:g}, normalised units: for Table 5 alone"


def _how_corrupted(evaluation: Values) -> str:
    corrupted = evaluation["shift"]
    source = corrupted["source"] if corrupted["source"] == PUBLISHED else f"{corrupted['source']}, not for Table 6"
    return f"{corrupted['n']:,} images, 15 x 5 times; {source}"


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "top1",
            "Top-1",
            read_at("evaluation", "top1"),
            better="higher",
            unit="%",
            digits=2,
            note="test images whose predicted class is right",
            places=("quality", "narrow", "differences", "figure"),
        ),
        Metric(
            "top5",
            "Top-5",
            read_at("evaluation", "top5"),
            better="higher",
            unit="%",
            digits=2,
            note="test images whose class is among the five likeliest",
            places=("quality", "differences"),
        ),
        Metric(
            "nll",
            "NLL",
            read_at("evaluation", "nll"),
            better="lower",
            note="mean negative log-likelihood, nats; lower is better",
            places=("quality", "calibration", "differences", "figure"),
        ),
        Metric(
            "brier",
            "Brier",
            read_at("evaluation", "brier"),
            better="lower",
            note="squared error of the probabilities, 0 to 2; lower is better",
            places=("quality", "differences"),
        ),
        Metric(
            "ece",
            "ECE",
            read_at("evaluation", "ece"),
            better="lower",
            note="expected calibration error; lower is better",
            places=("quality", "narrow", "calibration", "differences", "figure"),
        ),
        Metric(
            "gap",
            "Gap",
            read_at("evaluation", "gap"),
            signed=True,
            note="mean confidence minus accuracy: + over-confident, \N{MINUS SIGN} under-confident",
            places=("quality", "narrow"),
        ),
        Metric("abs_gap", "|Gap|", _absolute_gap, better="lower", places=("differences", "figure")),
        Metric(
            "adaptive_ece",
            "Adaptive ECE",
            read_at("evaluation", "adaptive_ece"),
            better="lower",
            how=lambda evaluation: f"{evaluation['bins']} bins of equally many images",
            places=("calibration", "digest"),
        ),
        Metric(
            "scaled_ece",
            "ECE, scaled",
            read_at("evaluation", "scaled", "ece"),
            better="lower",
            how=_how_scaled,
            places=("calibration", "digest"),
        ),
        Metric(
            "scaled_nll",
            "NLL, scaled",
            read_at("evaluation", "scaled", "nll"),
            better="lower",
            how=_how_scaled,
            places=("calibration", "digest"),
        ),
        Metric(
            "aurc",
            "AURC",
            read_at("evaluation", "selective", "aurc"),
            better="lower",
            digits=4,
            note="area under the risk-coverage curve; lower is better",
            places=("digest",),
        ),
        Metric(
            "train_top1",
            "Train top-1",
            read_at("evaluation", "train_top1"),
            unit="%",
            digits=2,
            note="on training images, not augmented: near 100 = fitted",
            how=lambda evaluation: f"on {evaluation['train_n']:,} training images",
            places=("training", "narrow", "runs", "digest"),
        ),
        Metric(
            "best_top1",
            "Best-epoch top-1",
            read_at("best", "top1"),
            better="higher",
            unit="%",
            digits=2,
            note="chosen on the test images, so optimistic",
            places=("training", "runs"),
        ),
        Metric(
            "peer_top1",
            "Peer top-1",
            _peer_top1,
            unit="%",
            digits=2,
            note="of the second network, which is not the one scored",
            places=("training",),
        ),
        Metric(
            "fgsm_2",
            "FGSM at 2/255",
            _under("fgsm"),
            better="higher",
            unit="%",
            digits=1,
            how=lambda evaluation: f"accuracy; true label, {evaluation['robustness']['n']:,} images",
            protocol=same("robustness", "n"),
            places=("digest",),
        ),
        Metric(
            "pgd_2",
            "PGD-20 at 2/255",
            _under("pgd"),
            better="higher",
            unit="%",
            digits=1,
            how=lambda evaluation: f"accuracy; {evaluation['robustness']['pgd_n']:,} images, evenly spaced",
            protocol=same("robustness", "pgd_n", "pgd_steps"),
            places=("differences", "figure", "digest"),
            verdict="under attack (PGD-20 at 2/255)",
        ),
        Metric(
            "fgsm_paper",
            "FGSM, the paper's protocol",
            read_at("evaluation", "robustness", "paper"),
            better="higher",
            unit="%",
            digits=1,
            how=_how_attacked_as_printed,
            protocol=same("robustness", "n", "paper_eps"),
            places=("digest",),
        ),
        Metric(
            "mca",
            "mCA",
            read_at("evaluation", "shift", "mca"),
            better="higher",
            unit="%",
            digits=2,
            how=_how_corrupted,
            protocol=same("shift", "source", "n"),
            places=("differences", "figure", "digest"),
            verdict="under corruption (mCA)",
        ),
        Metric(
            "ood_auroc",
            "AUROC, ODIN",
            _over_ood_sets("auroc"),
            better="higher",
            unit="%",
            digits=1,
            protocol=_ood_protocol,
            places=("differences", "figure"),
            verdict="at telling other images apart (AUROC of ODIN)",
        ),
        Metric(
            "ood_fpr",
            "FPR, ODIN",
            _over_ood_sets("fpr_at_95_tpr"),
            better="lower",
            unit="%",
            digits=1,
            protocol=_ood_protocol,
        ),
        Metric(
            "seconds_per_epoch",
            "Seconds/epoch",
            read_at("seconds_per_epoch"),
            better="lower",
            digits=2,
            note="median over the epochs",
            places=("training", "runs", "differences"),
        ),
        Metric(
            "images_per_second",
            "Images/s",
            read_at("images_per_second"),
            better="higher",
            digits=0,
            note="in training",
            places=("training",),
        ),
        Metric(
            "extra_parameters",
            "Extra parameters",
            read_at("extra_parameters"),
            better="lower",
            digits=0,
            spread=False,
            note="in training only; none remains in the model",
            places=("training",),
        ),
        Metric(
            "peak_memory_bytes",
            "Peak memory",
            read_at("peak_memory_bytes"),
            better="lower",
            unit="MiB",
            digits=0,
            note="of the accelerator",
            places=("training",),
        ),
    )
}
"""Every metric by its name, in reading order."""
