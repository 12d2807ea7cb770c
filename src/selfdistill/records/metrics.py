"""METRICS, the one registry of metrics: what each is called, where a record holds it, which way is better, where it is
shown.

A new metric is its function in `evaluate`, whose value the evaluation holds, and one entry here. Summaries, tables,
verdicts, figures and studies read the entry.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from selfdistill.records.evaluation import PUBLISHED, Evaluation, Robustness

Place = Literal["quality", "training", "narrow", "runs", "calibration", "differences", "figure", "digest"]
"""Where a metric is shown: the tables of quality and of training; the table on a narrow terminal; the table of every
run; the table of calibration; the table and the figure of paired differences; the summary of a single network. A metric
of "quality" is also in the table of every run and in the summary of a single network."""

Attack = Literal["fgsm", "pgd", "pgd_fgsm"]
"""Curves over eps of a `Robustness`."""

DETECTOR = "ODIN fixed"
"""The detector of the OOD metrics: its eps was chosen on nobody's images."""

FEW_IMAGES = 100
"""On fewer images than this no difference is called better or worse."""

_EPS = 2 / 255  # of the metrics that stand for a whole curve over eps
_SCALES = {"": 1.0, "%": 100.0, "MiB": 2.0**-20}


@dataclass(frozen=True)
class Metric:
    """One number of a run.

    Attributes:
        name: key in METRICS and `RunRecord.metric`.
        title: heading of its column.
        read: its value in an evaluation; None where it was not measured.
        better: "higher" or "lower"; None where neither is.
        unit: "%" of a fraction, "MiB" of bytes, or none.
        digits: after the decimal point, in that unit.
        signed: whether a plus sign is written.
        spread: whether the sd over seeds is written.
        note: what it is.
        how: how a single network's value was measured, in words (default: the note).
        protocol: what must be equal in two evaluations for a difference to mean anything.
        images: on how many images it was measured.
        places: where it is shown.
        verdict: where a method is better or worse by it, for the verdict's line on robustness; "": not mentioned there.
        read_run: its value in a `RunRecord`, where it belongs to the training and not to the evaluation.
    """

    name: str
    title: str
    read: Callable[[Evaluation], float | None] = lambda evaluation: None
    better: Literal["higher", "lower"] | None = None
    unit: Literal["", "%", "MiB"] = ""
    digits: int = 3
    signed: bool = False
    spread: bool = True
    note: str = ""
    how: Callable[[Evaluation], str] | None = None
    protocol: Callable[[Evaluation], object] = lambda evaluation: None
    images: Callable[[Evaluation], int] = lambda evaluation: evaluation.n
    places: tuple[Place, ...] = ()
    verdict: str = ""
    read_run: Callable[[Any], float | None] | None = None

    @property
    def scale(self) -> float:
        """Factor from the record's unit to `unit`."""
        return _SCALES[self.unit]

    def of_run(self, record: Any) -> float | None:
        """Its value in a `RunRecord`, whose module imports this one."""
        value: float | None = self.read(record.evaluation) if self.read_run is None else self.read_run(record)
        return value

    def is_of_few_images(self, record: Any) -> bool:
        """Whether its value in a `RunRecord` is of too few images to call a difference better or worse."""
        return self.read_run is None and self.images(record.evaluation) < FEW_IMAGES


def accuracy_at(robustness: Robustness, attack: Attack, eps: float) -> float | None:
    """Accuracy under an attack at one eps; None where that eps was not measured."""
    pairs: zip[tuple[float, float]] = zip(robustness.eps, getattr(robustness, attack), strict=True)
    return next((accuracy for at, accuracy in pairs if math.isclose(at, eps, rel_tol=1e-6)), None)


def _under(attack: Attack) -> Callable[[Evaluation], float | None]:
    return lambda e: accuracy_at(e.robustness, attack, _EPS) if e.robustness else None


def _over_ood_sets(metric: Literal["auroc", "fpr_at_95_tpr"]) -> Callable[[Evaluation], float | None]:
    """Mean over the OOD sets, each weighing the same."""

    def read(evaluation: Evaluation) -> float | None:
        found = [one.detectors[DETECTOR].metrics for one in evaluation.ood if DETECTOR in one.detectors]
        return statistics.fmean(getattr(metrics, metric) for metrics in found) if found else None

    return read


def _ood_protocol(evaluation: Evaluation) -> object:
    return tuple(
        (one.name, one.n, one.prepared, one.temperature, found and found.eps)
        for one in evaluation.ood
        for found in [one.detectors.get(DETECTOR)]
    )


def _ood_images(evaluation: Evaluation) -> int:
    return min((evaluation.n, *(one.n for one in evaluation.ood)))


def _attack_protocol(*names: str) -> Callable[[Evaluation], object]:
    return lambda evaluation: tuple(getattr(evaluation.robustness, name, None) for name in names)


def _how_scaled(evaluation: Evaluation) -> str:
    assert evaluation.scaled is not None
    return f"T = {evaluation.scaled.temperature:.2f}, fitted on the other half: a reference"


def _how_attacked(words: Callable[[Robustness], str]) -> Callable[[Evaluation], str]:
    return lambda evaluation: words(evaluation.robustness) if evaluation.robustness else ""


def _how_corrupted(evaluation: Evaluation) -> str:
    assert evaluation.shift is not None
    source = evaluation.shift.source
    return f"{evaluation.shift.n:,} images, 15 x 5 times; {source}{'' if source == PUBLISHED else ', not for Table 6'}"


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "top1",
            "Top-1",
            lambda e: e.top1,
            better="higher",
            unit="%",
            digits=2,
            note="test images whose predicted class is right",
            places=("quality", "narrow", "differences", "figure"),
        ),
        Metric(
            "top5",
            "Top-5",
            lambda e: e.top5,
            better="higher",
            unit="%",
            digits=2,
            note="test images whose class is among the five likeliest",
            places=("quality", "differences"),
        ),
        Metric(
            "nll",
            "NLL",
            lambda e: e.nll,
            better="lower",
            note="mean negative log-likelihood, nats; lower is better",
            places=("quality", "calibration", "differences", "figure"),
        ),
        Metric(
            "brier",
            "Brier",
            lambda e: e.brier,
            better="lower",
            note="squared error of the probabilities, 0 to 2; lower is better",
            places=("quality", "differences"),
        ),
        Metric(
            "ece",
            "ECE",
            lambda e: e.ece,
            better="lower",
            note="expected calibration error; lower is better",
            places=("quality", "narrow", "calibration", "differences", "figure"),
        ),
        Metric(
            "gap",
            "Gap",
            lambda e: e.gap,
            signed=True,
            note="mean confidence minus accuracy: + over-confident, \N{MINUS SIGN} under-confident",
            places=("quality", "narrow"),
        ),
        Metric("abs_gap", "|Gap|", lambda e: abs(e.gap), better="lower", places=("differences", "figure")),
        Metric(
            "adaptive_ece",
            "Adaptive ECE",
            lambda e: e.adaptive_ece,
            better="lower",
            how=lambda e: f"{e.bins} bins of equally many images",
            places=("calibration", "digest"),
        ),
        Metric(
            "classwise_ece",
            "Class-wise ECE",
            lambda e: e.classwise_ece,
            better="lower",
            digits=4,
            how=lambda e: f"{e.bins} bins of each class's probability, mean over the classes",
            places=("calibration", "digest"),
        ),
        Metric(
            "scaled_ece",
            "ECE, scaled",
            lambda e: e.scaled.ece if e.scaled else None,
            better="lower",
            how=_how_scaled,
            places=("calibration", "digest"),
        ),
        Metric(
            "scaled_nll",
            "NLL, scaled",
            lambda e: e.scaled.nll if e.scaled else None,
            better="lower",
            how=_how_scaled,
            places=("calibration", "digest"),
        ),
        Metric(
            "aurc",
            "AURC",
            lambda e: e.selective.aurc if e.selective else None,
            better="lower",
            digits=4,
            note="area under the risk-coverage curve; lower is better",
            places=("digest",),
        ),
        Metric(
            "balanced_accuracy",
            "Balanced accuracy",
            lambda e: e.classes.balanced_accuracy if e.classes else None,
            better="higher",
            unit="%",
            digits=2,
            note="mean of the classes' accuracies",
            places=("digest",),
        ),
        Metric(
            "macro_f1",
            "Macro F1",
            lambda e: e.classes.macro_f1 if e.classes else None,
            better="higher",
            unit="%",
            digits=2,
            note="mean of the classes' F1",
            places=("digest",),
        ),
        Metric(
            "train_top1",
            "Train top-1",
            lambda e: e.train_top1,
            unit="%",
            digits=2,
            note="on training images, not augmented: near 100 = fitted",
            how=lambda e: f"on {e.train_n:,} training images",
            places=("training", "narrow", "runs", "digest"),
        ),
        Metric(
            "best_top1",
            "Best-epoch top-1",
            read_run=lambda run: run.best.top1 if run.best else None,
            better="higher",
            unit="%",
            digits=2,
            note="chosen on the test images, so optimistic",
            places=("training", "runs"),
        ),
        Metric(
            "peer_top1",
            "Peer top-1",
            read_run=lambda run: run.log[-1].peer_top1 if run.rows else None,
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
            how=_how_attacked(lambda attacks: f"accuracy; true label, {attacks.n:,} images"),
            protocol=_attack_protocol("n"),
            places=("digest",),
        ),
        Metric(
            "pgd_2",
            "PGD-20 at 2/255",
            _under("pgd"),
            better="higher",
            unit="%",
            digits=1,
            how=_how_attacked(lambda attacks: f"accuracy; {attacks.pgd_n:,} images, evenly spaced"),
            protocol=_attack_protocol("pgd_n", "pgd_steps"),
            images=lambda e: e.robustness.pgd_n if e.robustness else 0,
            places=("differences", "figure", "digest"),
            verdict="under attack (PGD-20 at 2/255)",
        ),
        Metric(
            "fgsm_paper",
            "FGSM, the paper's protocol",
            lambda e: e.robustness.paper if e.robustness else None,
            better="higher",
            unit="%",
            digits=1,
            how=_how_attacked(lambda a: f"{a.n:,} images; eps {a.paper_eps:g}, normalised units: for Table 5 alone"),
            protocol=_attack_protocol("n", "paper_eps"),
            places=("digest",),
        ),
        Metric(
            "mca",
            "mCA",
            lambda e: e.shift.mca if e.shift else None,
            better="higher",
            unit="%",
            digits=2,
            how=_how_corrupted,
            protocol=lambda e: e.shift and (e.shift.source, e.shift.n),
            images=lambda e: e.shift.n if e.shift else 0,
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
            images=_ood_images,
            places=("differences", "figure"),
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
            read_run=lambda run: run.seconds_per_epoch,
            better="lower",
            digits=2,
            note="median over the epochs",
            places=("training", "runs", "differences"),
        ),
        Metric(
            "images_per_second",
            "Images/s",
            read_run=lambda run: run.images_per_second,
            better="higher",
            digits=0,
            note="in training",
            places=("training",),
        ),
        Metric(
            "extra_parameters",
            "Extra parameters",
            read_run=lambda run: run.extra_parameters,
            better="lower",
            digits=0,
            spread=False,
            note="in training only; none remains in the model",
            places=("training",),
        ),
        Metric(
            "peak_memory_bytes",
            "Peak memory",
            read_run=lambda run: run.peak_memory_bytes,
            better="lower",
            unit="MiB",
            digits=0,
            note="of the accelerator",
            places=("training",),
        ),
    )
}
"""Every metric by its name, in reading order."""
