"""Every method of the paper's Table 1, with and without SD-Dropout, where cross-entropy fits all its images.

uv run python studies/every_method.py     trains what is missing (CIFAR-100 in data/cifar100)
uv run python docs/make.py                     writes the page and the figures from the records
"""

from statistics import fmean

from setting import Setting

from selfdistill.config import TrainConfig
from selfdistill.records import Difference, RunRecord, Summary, summarise
from selfdistill.report.tables import Column, Table, column_of, markdown

PAIRS = {
    "CrossEntropy()": "SDDropout()",
    "LabelSmoothing()": "LabelSmoothing() + SDDropout()",
    "CSKD()": "CSKD() + SDDropout(weight=0.1)",
    "DDGSD()": "DDGSD() + SDDropout(weight=0.1)",
    "BYOT()": "BYOT() + SDDropout(weight=0.1)",
    "DML()": "DML() + SDDropout(weight=0.1)",
}
"""Each method, and the same with SD-Dropout at the weight that the paper's tables were run with."""

SETTING = Setting(
    "CIFAR-100, 20 classes x 50, 100 epochs",
    "every_method",
    TrainConfig(
        data="cifar100",
        classes=20,
        per_class=50,
        model="resnet10_cifar",
        width=16,
        batch_size=64,
        epochs=100,
        channels_last=True,
        eval_every=5,
    ),
    tuple(method for pair in PAIRS.items() for method in pair),
)


def pairs_table(records: list[RunRecord]) -> str:
    """One row per method: alone, with SD-Dropout, and the difference of the two paired by seed."""
    rows = []
    for alone, together in pairs_of(records):
        summary = summarise([record for record in records if record.method in (alone, together)])
        row = [alone, together.removeprefix(f"{alone} + ")]
        for column in (column_of("top1", digits=1), column_of("ece")):
            means = [column.number(summary.statistics[m, column.metric].mean) for m in (alone, together)]
            row += [*means, _interval(summary.differences[together, column.metric], column)]
        rows.append((*row, *(f"{summary.statistics[m, 'gap'].mean:+.3f}" for m in (alone, together))))
    headings = (
        *("Method", "and", "Top-1 (%)", "Top-1 with", "Δ, points"),
        *("ECE", "ECE with", "Δ", "Gap", "Gap with"),
    )
    return markdown(Table(headings, tuple(rows)))


def losses_table(records: list[RunRecord]) -> str:
    """The terms of the last epoch's training steps, unweighted and without T**2: the mean over the seeds."""
    by_method: dict[str, list[RunRecord]] = {}
    for record in records:
        by_method.setdefault(record.method, []).append(record)
    names = list(dict.fromkeys(name for record in records for name in record.terms))
    rows = []
    for method, runs in by_method.items():
        last = [run.log[-1] for run in runs]
        terms = [[row.terms[name] or 0.0 for row in last if name in row.terms] for name in names]
        cells = [f"{fmean(values):.4f}" if values else "" for values in terms]
        train = fmean(run.evaluation.train_top1 or 0.0 for run in runs)
        rows.append((method, *cells, f"{100 * train:.1f}"))
    return markdown(Table(("Method", *names, "Train top-1 (%)"), tuple(rows)))


def findings(records: list[RunRecord]) -> str:
    """Say in how many of the pairs SD-Dropout raised or lowered accuracy and ECE, by the 95 % intervals."""
    differences = {
        metric: [_pair(records, pair).differences[pair[1], metric] for pair in pairs_of(records)]
        for metric in ("top1", "ece")
    }
    sentences = []
    for what, metric in (("Accuracy", "top1"), ("ECE", "ece")):
        effects = [difference.effect for difference in differences[metric]]
        several = "s" if len(effects) > 1 else ""
        sentences.append(
            f"- {what}, {len(effects)} pair{several}: better in {effects.count('better')}, "
            f"worse in {effects.count('worse')}, undecided (the 95 % interval holds zero) in "
            f"{effects.count('unclear')}."
        )
    return "\n".join(sentences)


def pairs_of(records: list[RunRecord]) -> list[tuple[str, str]]:
    """The pairs of which both methods have been run."""
    there = {record.method for record in records}
    return [pair for pair in PAIRS.items() if there >= set(pair)]


def _pair(records: list[RunRecord], pair: tuple[str, str]) -> Summary:
    return summarise([record for record in records if record.method in pair])


def _interval(difference: Difference, column: Column) -> str:
    if difference.mean is None:
        return ""
    if difference.low is None or difference.high is None:
        return f"{column.scale * difference.mean:+.{column.digits}f}"
    mean, low, high = (
        f"{column.scale * value:+.{column.digits}f}" for value in (difference.mean, difference.low, difference.high)
    )
    return f"{mean} ({low} to {high})"


if __name__ == "__main__":
    SETTING.train()
