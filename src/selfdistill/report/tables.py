"""The numbers of a comparison as rows of text: one set of cells for HTML, Markdown and the terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from selfdistill.records import METRICS, Difference, EnsembleRecord, Evaluation, LinearProbeRecord, Statistic, Summary
from selfdistill.records.metrics import DETECTOR, Place
from selfdistill.text import printable

_WIDE = 110  # so many characters hold every column of the table of quality
LINEAR_PROBE, ENSEMBLE = "linear probe", "ensemble"
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


@dataclass(frozen=True)
class Column:
    """How one metric is written: its title, unit, scale from the record's unit, digits, sign, spread."""

    metric: str
    title: str
    unit: str = ""
    scale: float = 1.0
    digits: int = 3
    signed: bool = False
    spread: bool = True
    note: str = ""

    def number(self, value: float, *, signed: bool | None = None) -> str:
        """A value of the record in this column's unit.

        Example:
            >>> column_of("top1").number(0.9781), column_of("gap").number(-0.0191)
            ('97.81', '−0.019')
        """
        show_sign = self.signed if signed is None else signed
        text = f"{value * self.scale:{'+' if show_sign else ''},.{self.digits}f}"
        if not text.strip("+-0.,"):
            text = text.lstrip("+-")  # no sign before a zero
        return text.replace("-", MINUS)

    def with_unit(self, value: float) -> str:
        """A value and its unit, such as ``97.81 %``."""
        return f"{self.number(value)} {self.unit}".rstrip()

    def cell(self, statistic: Statistic | None) -> str:
        """Mean and sd over seeds, such as ``97.81 ± 0.12``; a dash where nothing was measured."""
        if statistic is None:
            return DASH
        mean = self.number(statistic.mean)
        return (
            mean if statistic.sd is None or not self.spread else f"{mean} ± {self.number(statistic.sd, signed=False)}"
        )

    @property
    def heading(self) -> str:
        """Title and unit, such as ``Top-1 (%)``."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


PERCENT = Column("share", "Share", "%", 100, 1)
_SPREAD = Column("sd", "sd", digits=4)


def column_of(name: str, **changes: Any) -> Column:
    """The column of a metric as METRICS has it; `changes` replace attributes.

    Example:
        >>> column_of("top1").heading, column_of("top1", digits=1).number(0.9781)
        ('Top-1 (%)', '97.8')
    """
    metric = METRICS[name]
    column = Column(
        name, metric.title, metric.unit, metric.scale, metric.digits, metric.signed, metric.spread, metric.note
    )
    return replace(column, **changes)


def difference_column(name: str) -> Column:
    """The column of a metric's differences: signed, and in points where the metric is in %.

    Example:
        >>> difference_column("top1").heading, difference_column("top1").number(0.0123)
        ('Top-1 (points)', '+1.23')
    """
    column = column_of(name, signed=True)
    return replace(column, unit="points") if column.unit == "%" else column


def metrics_in(*places: Place) -> list[str]:
    """The metrics that are shown in one of the places, in reading order.

    Example:
        >>> metrics_in("narrow")
        ['top1', 'ece', 'gap', 'train_top1']
    """
    return [name for name, metric in METRICS.items() if set(places) & set(metric.places)]


def columns_in(*places: Place) -> list[Column]:
    """The columns of `metrics_in`."""
    return [column_of(name) for name in metrics_in(*places)]


@dataclass(frozen=True)
class Table:
    """Headings, and rows of cells; the first cell of a row names the method."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def present(columns: Iterable[Column], summary: Summary) -> tuple[Column, ...]:
    """The columns that some method of the summary has a number for."""
    return tuple(c for c in columns if any((m, c.metric) in summary.statistics for m in summary.methods))


def metric_table(
    summary: Summary,
    columns: Sequence[Column] | None = None,
    probe: LinearProbeRecord | None = None,
    ensembles: Sequence[EnsembleRecord] = (),
) -> Table:
    """One row per method: mean ± sd over its seeds, and how many seeds (default: the columns of quality).

    Below are the ensembles of the methods' seeds, and a linear probe, which has no seeds.
    """
    visible = present(columns_in("quality") if columns is None else columns, summary)
    rows = tuple(
        (
            method,
            *(c.cell(summary.statistics.get((method, c.metric))) for c in visible),
            str(len(summary.seeds[method])),
        )
        for method in summary.methods
    )
    notes = [f"{c.title}: {c.note}" for c in visible if c.note]
    others = [(f"{ENSEMBLE}, {one.method}", one.evaluation, str(len(one.seeds))) for one in ensembles]
    if ensembles:
        notes.append(f"{ENSEMBLE}: the networks of all seeds together, by the mean of their probabilities")
    if probe is not None:
        others.append((LINEAR_PROBE, probe.evaluation, DASH))
        notes.append(f"{LINEAR_PROBE}: logistic regression on the pretrained features, without training the network")
    for name, evaluation, seeds in others:
        values = [METRICS[c.metric].read(evaluation) for c in visible]
        cells = [DASH if value is None else c.number(value) for c, value in zip(visible, values, strict=True)]
        rows = (*rows, (name, *cells, seeds))
    return Table(("Method", *(c.heading for c in visible), "Seeds"), rows, tuple(notes))


def terminal_table(summary: Summary, *, title: str, width: int, probe: LinearProbeRecord | None = None) -> RichTable:
    """The quality of each method, in the columns that fit; the title says how many seeds where all have as many.

    Args:
        title: above the table.
        probe: a linear probe of the same images, for the last row.
    """
    narrow = [replace(c, title=c.title.removesuffix(" top-1")) for c in columns_in("narrow")]  # for 80 characters
    table = metric_table(summary, None if width >= _WIDE else narrow, probe)
    counts = {len(seeds) for seeds in summary.seeds.values()}
    if len(counts) == 1:
        (n,) = counts
        title += f" ({n} seeds, mean ± sd)" if n > 1 else " (1 seed)"
        table = Table(table.headings[:-1], tuple(row[:-1] for row in table.rows))
    return terminal(table, title=title)


def interval(column: Column, difference: Difference) -> str:
    """The 95 % interval in the column's unit, or a dash where there is none."""
    if difference.low is None or difference.high is None:
        return DASH
    return f"{column.number(difference.low)} to {column.number(difference.high)}"


def difference_table(summary: Summary) -> Table:
    """One row per method and metric: its paired difference to the first method, interval, pairs and verdict."""
    rows = [
        (
            method,
            column.heading,
            DASH if d.mean is None else column.number(d.mean),
            interval(column, d),
            str(d.n),
            d.verdict if d.effect == "unclear" else f"{d.verdict}: {d.effect}",
        )
        for method in summary.methods[1:]
        for column in map(difference_column, metrics_in("differences"))
        if (d := summary.differences.get((method, column.metric))) is not None
    ]
    return Table(("Method", "Metric", "Difference", "95 % interval", "Pairs", "Verdict"), tuple(rows))


def digest(evaluation: Evaluation) -> Table:
    """Everything that was measured of one network, one row a number: metric, value, and what was done to get it."""
    rows = (*_metrics(evaluation), *_without_gradient(evaluation), *_ood(evaluation))
    left_out = tuple(("Not measured", DASH, line) for line in evaluation.omitted)
    return Table(("Metric", "Value", f"on {evaluation.n:,} test images"), (*rows, *left_out))


def _metrics(evaluation: Evaluation) -> Iterator[tuple[str, str, str]]:
    for column in columns_in("quality", "digest"):
        metric = METRICS[column.metric]
        if (value := metric.read(evaluation)) is not None:
            yield column.heading, column.number(value), metric.how(evaluation) if metric.how else metric.note


def _without_gradient(evaluation: Evaluation) -> Iterator[tuple[str, str, str]]:
    if evaluation.robustness is not None and evaluation.robustness.vanished > 0:
        share = column_of("fgsm_2").number(evaluation.robustness.vanished)
        yield "No gradient (%)", share, "of the images: neither attack can move them"


def _ood(evaluation: Evaluation) -> Iterator[tuple[str, str, str]]:
    auroc, fpr = column_of("ood_auroc"), column_of("ood_fpr")
    for one in evaluation.ood:
        if (found := one.detectors.get(DETECTOR)) is not None:
            note = f"{one.n:,} images; T = {one.temperature:g}, eps = {found.eps:g}"
            yield f"AUROC, {DETECTOR}, {one.name} (%)", auroc.number(found.metrics.auroc), note
            note = "at 95 % TPR, the test images being positive"
            yield f"FPR, {DETECTOR}, {one.name} (%)", fpr.number(found.metrics.fpr_at_95_tpr), note
    spread = [(one.name, one.disagreement) for one in evaluation.ood if one.disagreement is not None]
    for _, test in spread[:1]:
        yield "Spread, test images", _SPREAD.number(test.in_distribution), f"sd over {test.masks} dropout masks"
    for name, other in spread:
        yield f"Spread, {name}", _SPREAD.number(other.ood), "the same"


def markdown(table: Table) -> str:
    """A table as GitHub Markdown; cells are escaped.

    Example:
        >>> print(markdown(Table(("Method", "Top-1"), (("a|b", "1"),))))
        | Method | Top-1 |
        |:--|--:|
        | a\\|b | 1 |
    """
    lines = [
        "| " + " | ".join(map(escape_markdown, table.headings)) + " |",
        "|:--|" + "--:|" * (len(table.headings) - 1),
    ]
    lines += ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in table.rows]
    return "\n".join(lines)


def html(table: Table) -> str:
    """A table as HTML without styles of its own; cells are escaped.

    Example:
        >>> html(Table(("Method", "Top-1"), (("a<b", "1"),)))
        '<table><tr><th>Method</th><th>Top-1</th></tr><tr><td>a&lt;b</td><td>1</td></tr></table>'
    """

    def row(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(printable(cell))}</{tag}>' for cell in cells)}</tr>"

    return f"<table>{row(table.headings, 'th')}{''.join(row(cells, 'td') for cells in table.rows)}</table>"


def escape_markdown(text: str) -> str:
    """Text that Markdown and the HTML within it show as it is, on one line.

    Example:
        >>> print(escape_markdown("<b>a_b</b>|c"))
        &lt;b&gt;a\\_b&lt;/b&gt;\\|c
    """
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join("\\" + c if c in "\\`*_[]|~$" else c for c in text)


def terminal(
    table: Table, *, title: str | None = None, styles: Sequence[str] = (), prose: Collection[int] = (0,)
) -> RichTable:
    """A table for the terminal.

    Args:
        title: above it.
        styles: a rich style for each row, repeated; none by default.
        prose: the columns of words, by number: flush left, and broken where they must be; the others hold numbers.
    """
    # Words are kept apart from a number before them.
    apart = [" " if i in prose and i > 0 and i - 1 not in prose else "" for i in range(len(table.headings))]
    above = _text(title or "", "table.title")
    out = RichTable(
        title=above or None,
        min_width=above.cell_len,  # a title is not broken where the console is wide enough
        title_justify="left",
        header_style="bold",
        row_styles=list(styles),
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=0,
    )
    for i, heading in enumerate(table.headings):
        words = i in prose
        out.add_column(
            _text(apart[i] + heading),
            justify="left" if words else "right",
            no_wrap=not words,
            min_width=12 if words else 0,
            overflow="fold",
        )
    for row in table.rows:
        out.add_row(*(_text(space + cell) for space, cell in zip(apart, row, strict=True)))
    return out


def _text(text: str, style: str = "") -> Text:
    """A text of any origin, in which rich sees neither markup nor emoji codes."""
    return Text(printable(text), style)
