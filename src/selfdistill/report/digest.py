"""Everything that was measured of one network in a line each: what a terminal and the top of a page show."""

from __future__ import annotations

from collections.abc import Iterator

from selfdistill.records import METRICS
from selfdistill.records.metrics import DETECTOR, Values, metric_of
from selfdistill.report.tables import DASH, Column, Table, column_of, columns_in

Row = tuple[str, str, str]

_SPREAD = Column("sd", "sd", digits=4)


def digest(evaluation: Values) -> Table:
    """One row a number: metric, value, and what was done to get it.

    Args:
        evaluation: an `Evaluation` as a dict.
    """
    rows = (*_metrics(evaluation), *_without_gradient(evaluation), *_ood(evaluation))
    left_out = tuple(("Not measured", DASH, line) for line in evaluation.get("omitted") or ())
    return Table(("Metric", "Value", f"on {evaluation['n']:,} test images"), (*rows, *left_out))


def _metrics(evaluation: Values) -> Iterator[Row]:
    for column in columns_in("quality", "digest"):
        value, how = metric_of(evaluation, column.metric), METRICS[column.metric].how
        if value is not None:
            yield column.heading, column.number(value), column.note if how is None else how(evaluation)


def _without_gradient(evaluation: Values) -> Iterator[Row]:
    attacks = evaluation.get("robustness")
    if attacks is not None and attacks["vanished"] > 0:
        share = column_of("fgsm_2").number(attacks["vanished"])
        yield "No gradient (%)", share, "of the images: neither attack can move them"


def _ood(evaluation: Values) -> Iterator[Row]:
    sets = evaluation.get("ood") or ()
    auroc, fpr = column_of("ood_auroc"), column_of("ood_fpr")
    for one in sets:
        name, found = one["name"], one["detectors"].get(DETECTOR)
        if found is not None:
            note = f"{one['n']:,} images; T = {one['temperature']:g}, eps = {found['eps']:g}"
            yield f"AUROC, {DETECTOR}, {name} (%)", auroc.number(found["metrics"]["auroc"]), note
            note = "at 95 % TPR, the test images being positive"
            yield f"FPR, {DETECTOR}, {name} (%)", fpr.number(found["metrics"]["fpr_at_95_tpr"]), note
    spread = [one for one in sets if one["disagreement"] is not None]
    if spread:
        masks = spread[0]["disagreement"]
        yield "Spread, test images", _SPREAD.number(masks["inside"]), f"sd over {masks['masks']} dropout masks"
    for one in spread:
        yield f"Spread, {one['name']}", _SPREAD.number(one["disagreement"]["outside"]), "the same"
