"""`Evaluation`: everything that was measured of one network on one test set, as records hold it.

Each struct is whole to JSON and back by `msgspec.to_builtins` and `msgspec.convert`; every rate is a fraction.
"""

from __future__ import annotations

from statistics import fmean

import msgspec
from msgspec import UNSET, UnsetType

MEASURES = ("robustness", "shift", "ood")
"""What can be measured beyond accuracy and calibration; "shift" is accuracy under corruption, as records name it."""

PUBLISHED, OWN = "published arrays", "own corruptions"
"""Sources of corrupted images; the second is a substitute, and does not stand beside a printed number."""


class Reliability(msgspec.Struct, frozen=True):
    """A reliability diagram's numbers: per bin the count, the mean confidence and the accuracy.

    Attributes:
        edges: the M + 1 borders of the bins, 0 to 1; a bin is open on the left and closed on the right.
        count: rows in each bin.
        confidence: mean confidence in each bin, a fraction; None where the bin is empty.
        accuracy: share of right predictions in each bin, a fraction; None where the bin is empty.
    """

    edges: tuple[float, ...]
    count: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]

    @property
    def expected_calibration_error(self) -> float:
        """Eq. 12 over these bins: sum of count times |accuracy - confidence|, over N."""
        return sum(
            n * abs(a - c)
            for n, a, c in zip(self.count, self.accuracy, self.confidence, strict=True)
            if a is not None and c is not None
        ) / sum(self.count)


class Scaled(msgspec.Struct, frozen=True, kw_only=True):
    """Calibration with temperature scaling, each image at a temperature that was fitted without it: a reference.

    Attributes:
        temperatures: fitted on the images at even and at odd positions; each scores the other half.
        n: images.
        nll: mean negative log-likelihood, nats.
        ece: expected calibration error (Eq. 12) of all images over `bins` bins.
        gap: mean confidence minus accuracy; the accuracy is what it was, since no temperature changes a prediction.
        bins: number of equal-width bins of `ece`.
    """

    temperatures: tuple[float, float]
    n: int
    nll: float
    ece: float
    gap: float
    bins: int

    @property
    def temperature(self) -> float:
        """Mean of the two fitted temperatures; above 1 the network was over-confident."""
        return sum(self.temperatures) / 2


class RiskCoverage(msgspec.Struct, frozen=True):
    """A risk-coverage curve's numbers.

    Attributes:
        coverage: shares of the images that are answered, rising to 1.
        risk: the error rate among those answered.
        aurc: the area under the whole curve, over every k, whatever the number of points kept here.
        n: images.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    aurc: float
    n: int


class Robustness(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy on clean and on attacked images. Fractions; in evaluation mode and float32.

    FGSM sees the gradient once. A network that is sure beyond float32's reach gives it nothing to see, and one whose
    gradient turns within eps misleads it, so FGSM alone flatters over-confident networks: where `pgd` is far below
    `pgd_fgsm`, believe PGD; where `vanished` is large, believe neither.

    Attributes:
        n: images of `clean`, `fgsm`, `paper` and `vanished`.
        clean: accuracy on them as they are.
        eps: radii of `fgsm`, `pgd` and `pgd_fgsm`, rising, shares of the pixel range.
        fgsm: accuracy under FGSM at each eps, protocol "standard".
        paper_eps: radius of `paper`, in normalised units: not comparable with `eps`.
        paper: accuracy under FGSM, protocol "paper" (Table 5), which attacks the network's own prediction.
        vanished: share of the images whose loss of the true label has a gradient of exactly 0 in every pixel: the
            softmax is 1 and 0 to the last bit, and neither FGSM nor PGD from there can find a direction. Such images
            count as robust below without having been attacked.
        pgd_n: images of `pgd_clean`, `pgd` and `pgd_fgsm`, evenly spaced over the n.
        pgd_steps: steps of PGD.
        pgd_clean: accuracy on those images as they are.
        pgd: accuracy under PGD at each eps. An image that a smaller ball breaks is broken in a larger, which holds it.
        pgd_fgsm: accuracy under FGSM, "standard", on the same images at each eps.
    """

    n: int
    clean: float
    eps: tuple[float, ...]
    fgsm: tuple[float, ...]
    paper_eps: float
    paper: float
    vanished: float
    pgd_n: int
    pgd_steps: int
    pgd_clean: float
    pgd: tuple[float, ...]
    pgd_fgsm: tuple[float, ...]


class CorruptionAccuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy under corruption.

    Attributes:
        source: ``PUBLISHED`` or ``OWN``.
        n: images at each severity of each corruption.
        mca: mean corruption accuracy, Table 6's last row: over the fifteen corruptions of the means over severities.
            Accuracy, not the mean corruption error (mCE) of other papers, which divides by another network's errors.
        per_severity: mean over the fifteen corruptions, at severity 1, 2 ... 5.
        accuracy: by corruption, in the order of Table 6, the accuracies at severity 1, 2 ... 5.
    """

    source: str
    n: int
    mca: float
    per_severity: tuple[float, ...]
    accuracy: dict[str, tuple[float, ...]]

    @property
    def per_corruption(self) -> dict[str, float]:
        """Mean over the five severities: a row of Table 6."""
        return {name: fmean(values) for name, values in self.accuracy.items()}


class OODMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """How well scores separate two sets. Fractions; "in" is the positive class unless a name says "out".

    Attributes:
        fpr_at_95_tpr: share of the out-of-distribution images accepted at the highest threshold that accepts at least
            95 % of the in-distribution ones.
        detection_error: min over thresholds of (P(in rejected) + P(out accepted)) / 2: what Table 7 prints.
        detection_error_at_95_tpr: the same mean at the threshold of `fpr_at_95_tpr`: what the paper's text defines.
        auroc: P(in > out) + P(in = out) / 2 over pairs.
        aupr_in: average precision, in positive, by counts: depends on the sizes of the sets.
        aupr_out: average precision, out positive, by counts.
        balanced_aupr_in: with either set weighing the same, as the release of ODIN forms it from rates.
        balanced_aupr_out: the same, out positive.
        n_in: in-distribution images.
        n_out: out-of-distribution images.
    """

    fpr_at_95_tpr: float
    detection_error: float
    detection_error_at_95_tpr: float
    auroc: float
    aupr_in: float
    aupr_out: float
    balanced_aupr_in: float
    balanced_aupr_out: float
    n_in: int
    n_out: int


class RocCurve(msgspec.Struct, frozen=True):
    """A ROC curve, thinned: share of the out- and of the in-distribution images accepted, from (0, 0) to (1, 1)."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


class ScoreHistogram(msgspec.Struct, frozen=True):
    """Counts of scores in equal bins over their common range.

    Attributes:
        edges: of the bins, one more than there are bins.
        in_distribution: test images.
        ood: out-of-distribution images.
    """

    edges: tuple[float, ...]
    in_distribution: tuple[int, ...] = msgspec.field(name="inside")
    ood: tuple[int, ...] = msgspec.field(name="outside")


class OODDetector(msgspec.Struct, frozen=True):
    """How well one score separates a set from the test images; eps is ODIN's, None for the other detectors."""

    metrics: OODMetrics
    curve: RocCurve
    histogram: ScoreHistogram
    eps: float | None


class OODDisagreement(msgspec.Struct, frozen=True):
    """Section 4.5's claim: the sd of the posterior over dropout masks, a mean over images, classes and mask sets.

    Attributes:
        masks: M, of each set of masks.
        p: probability that a feature is dropped.
        temperature: of the posteriors.
        seeds: how many sets of masks.
        in_distribution: on the test images.
        ood: on the out-of-distribution images.
    """

    masks: int
    p: float
    temperature: float
    seeds: int
    in_distribution: float = msgspec.field(name="inside")
    ood: float = msgspec.field(name="outside")


class OODResult(msgspec.Struct, frozen=True):
    """One out-of-distribution set against the test images.

    Attributes:
        name: of the set.
        n: its images.
        prepared: the resizing and cropping applied.
        detectors: by name, those that could be measured.
        tuned_on: in- and out-of-distribution images that chose the eps of "ODIN released" and are not scored by it.
        temperature: ODIN's T.
        disagreement: None if the network's head was not found.
    """

    name: str
    n: int
    prepared: str
    detectors: dict[str, OODDetector]
    tuned_on: tuple[int, int]
    temperature: float
    disagreement: OODDisagreement | None


class SuiteConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What of an evaluation's config decides its numbers; records hold it.

    Attributes:
        measures: some of `MEASURES`; none: accuracy and calibration alone.
        ood: out-of-distribution sets, as for `selfdistill.data.load_unlabelled`.
        corruptions: a folder of the published CIFAR-10-C or CIFAR-100-C; None: own corruptions of the test images.
        max_images: PGD and own corruptions see at most so many test images.
        max_ood_images: use at most so many images of an out-of-distribution set, evenly spaced; None: all.
    """

    measures: tuple[str, ...] = MEASURES
    ood: tuple[str, ...] = ("photographs",)
    corruptions: str | None = None
    max_images: int = 1000
    max_ood_images: int | None = None


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Where, how and when the suite was run: seconds that it took, device, date (UTC, ISO 8601), and its config."""

    seconds: float
    device: str
    threads: int
    versions: dict[str, str]
    date: str
    commit: str | None
    config: SuiteConfig = msgspec.field(name="asked")


class ClassScores(msgspec.Struct, frozen=True, kw_only=True):
    """How well each class is told from the others. Fractions; None where nothing is to be divided by.

    Attributes:
        confusion: the cells of the confusion matrix that are not 0: true class, predicted class, images.
        precision: of each class, the share of right ones among the images for which it is predicted.
        recall: of each class, the share of its images that are found.
        f1: of each class, the harmonic mean of the two; 0 where both are.
        balanced_accuracy: mean recall of the classes that have images.
        macro_f1: mean F1 of the classes that have images or are predicted.
    """

    confusion: tuple[tuple[int, int, int], ...]
    precision: tuple[float | None, ...]
    recall: tuple[float | None, ...]
    f1: tuple[float | None, ...]
    balanced_accuracy: float
    macro_f1: float


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one trained model on one test set. Every rate is a fraction.

    Attributes:
        n: test images.
        top1: share of test images whose predicted class is right.
        top5: share whose class is among the five likeliest; None if there are fewer than six classes.
        nll: mean negative log-likelihood, nats.
        brier: Brier score, in [0, 2].
        ece: expected calibration error (Eq. 12) over `bins` bins.
        bins: number of bins of `ece`, `adaptive_ece` and `reliability`.
        confidence: mean of the largest probability.
        gap: `confidence` minus `top1`: above 0 over-confident, below 0 under-confident.
        reliability: the diagram's numbers.
        per_class: accuracy of each class, its recall; None for a class without a test image.
        classes: precision, recall and F1 by class, and the confusion matrix; None in records of earlier versions.
        train_n: training images that were scored, without augmentation and in eval mode; None if none were.
        train_top1: accuracy on them: near 1 says that the network has fitted its training set.
        adaptive_ece: the calibration error over bins of equally many images.
        classwise_ece: the calibration error of every class's probability, a mean over the classes.
        scaled: what temperature scaling makes of the same logits, for reference; None for a single image.
        selective: error rate by the share of images that are answered, the surest first.
        robustness: accuracy under FGSM and PGD; None where it was not measured, as the next.
        shift: accuracy under corruption.
        ood: one entry for each out-of-distribution set.
        omitted: a line for each measure that was asked for and could not be taken.
        measured: where and how the suite was run, where that was after the training; unset where it was not.
    """

    n: int
    top1: float
    top5: float | None
    nll: float
    brier: float
    ece: float
    bins: int
    confidence: float
    gap: float
    reliability: Reliability
    per_class: tuple[float | None, ...]
    classes: ClassScores | None = None
    train_n: int | None = None
    train_top1: float | None = None
    adaptive_ece: float | None = None
    classwise_ece: float | None = None
    scaled: Scaled | None = None
    selective: RiskCoverage | None = None
    robustness: Robustness | None = None
    shift: CorruptionAccuracy | None = None
    ood: tuple[OODResult, ...] = ()
    omitted: tuple[str, ...] = ()
    measured: Measured | UnsetType = UNSET
