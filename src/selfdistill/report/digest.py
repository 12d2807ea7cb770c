"""Everything that was measured of one network in a line each: what a terminal and the top of a page show."""

from __future__ import annotations

from collections.abc import Iterator

from selfdistill.records.metric import DETECTOR, accuracy_at, metric_of
from selfdistill.report.measured import Values
from selfdistill.report.measures.calibration import temperature
from selfdistill.report.measures.shift import PUBLISHED
from selfdistill.report.tables import DASH, QUALITY, Column, Table

Row = tuple[str, str, str]

_RATE = Column("rate", "Rate", "%", 100, 1)
_EPS = 2 / 255
_OF = {column.metric: column for column in QUALITY}
_SPREAD = Column("sd", "sd", digits=4)


def digest(evaluation: Values) -> Table:
    """One row a number: metric, value, and what was done to get it.

    Args:
        evaluation: an `Evaluation` as a dict.
    """
    rows = (*_quality(evaluation), *_attacked(evaluation), *_corrupted(evaluation), *_outside(evaluation))
    left_out = tuple(("Not measured", DASH, line) for line in evaluation.get("omitted") or ())
    return Table(("Metric", "Value", f"on {evaluation['n']:,} test images"), (*rows, *left_out))


def _quality(evaluation: Values) -> Iterator[Row]:
    for column in QUALITY:
        if evaluation[column.metric] is not None:
            yield column.heading, column.number(evaluation[column.metric]), column.note.removesuffix("; last epoch")
    if evaluation.get("adaptive_ece") is not None:
        number = _OF["ece"].number(evaluation["adaptive_ece"])
        yield "Adaptive ECE", number, f"{evaluation['bins']} bins of equally many images"
    fitted = temperature(evaluation)
    if fitted is not None:
        note = f"T = {fitted:.2f}, fitted on the other half: a reference"
        for metric in ("ece", "nll"):
            yield f"{_OF[metric].title}, scaled", _OF[metric].number(evaluation["scaled"][metric]), note
    aurc = metric_of(evaluation, "aurc")
    if aurc is not None:
        yield "AURC", f"{aurc:.4f}", "area under the risk-coverage curve; lower is better"
    if evaluation.get("train_top1") is not None:
        yield "Train top-1 (%)", f"{evaluation['train_top1']:.2%}"[:-1], f"on {evaluation['train_n']:,} training images"


def _attacked(evaluation: Values) -> Iterator[Row]:
    attacks = evaluation.get("robustness")
    if attacks is None:
        return
    n, few = f"{attacks['n']:,} images", f"{attacks['pgd_n']:,} images, evenly spaced"
    for attack, name, on in (("fgsm", "FGSM", f"true label, {n}"), ("pgd", f"PGD-{attacks['pgd_steps']}", few)):
        accuracy = accuracy_at(attacks, attack, _EPS)
        if accuracy is not None:
            yield f"{name} at 2/255 (%)", _RATE.number(accuracy), f"accuracy; {on}"
    note = f"{n}; eps {attacks['paper_eps']:g}, normalised units: for Table 5 alone"
    yield "FGSM, paper protocol (%)", _RATE.number(attacks["paper"]), note
    if attacks["vanished"] > 0:
        yield (
            "No gradient (%)",
            _RATE.number(attacks["vanished"]),
            "of the images: neither attack can move them",
        )


def _corrupted(evaluation: Values) -> Iterator[Row]:
    shift = evaluation.get("shift")
    if shift is not None:
        source = shift["source"] if shift["source"] == PUBLISHED else f"{shift['source']}, not for Table 6"
        yield "mCA (%)", _OF["top1"].number(shift["mca"]), f"{shift['n']:,} images, 15 x 5 times; {source}"


def _outside(evaluation: Values) -> Iterator[Row]:
    sets = evaluation.get("ood") or ()
    for detection in sets:
        name, found = detection["name"], detection["detectors"].get(DETECTOR)
        if found is not None:
            note = f"{detection['n']:,} images; T = {detection['temperature']:g}, eps = {found['eps']:g}"
            yield f"AUROC, {DETECTOR}, {name} (%)", _RATE.number(found["metrics"]["auroc"]), note
            note = "at 95 % TPR, the test images being positive"
            yield f"FPR, {DETECTOR}, {name} (%)", _RATE.number(found["metrics"]["fpr_at_95_tpr"]), note
    spread = [one for one in sets if one["disagreement"] is not None]
    if spread:
        masks = spread[0]["disagreement"]
        yield "Spread, test images", _SPREAD.number(masks["inside"]), f"sd over {masks['masks']} dropout masks"
    for detection in spread:
        yield f"Spread, {detection['name']}", _SPREAD.number(detection["disagreement"]["outside"]), "the same"
