import pytest
from rich.console import Console

from selfdistill.records import RunRecord, Statistic, summarise
from selfdistill.report.tables import (
    Table,
    column_of,
    columns_in,
    difference_table,
    markdown,
    metric_table,
    metrics_in,
    terminal,
    terminal_table,
)


def test_rows_are_mean_sd_and_n(comparison: list[RunRecord]) -> None:
    summary = summarise(comparison)
    table = metric_table(summary)
    top1 = summary.statistics["CrossEntropy()", "top1"]
    assert table.headings == ("Method", "Top-1 (%)", "Top-5 (%)", "NLL", "Brier", "ECE", "Gap", "Seeds")
    assert [row[0] for row in table.rows] == list(summary.methods)
    assert table.rows[0][1] == f"{100 * top1.mean:.2f} ± {100 * top1.sd:.2f}"
    assert [row[-1] for row in table.rows] == ["3"] * 4


def test_the_gap_is_signed_and_stands_right_of_the_ece(comparison: list[RunRecord]) -> None:
    table = metric_table(summarise(comparison))
    ece = table.headings.index("ECE")
    assert table.headings[ece + 1] == "Gap"
    assert table.rows[0][ece + 1].startswith("+")
    assert table.rows[3][ece + 1].startswith("−")  # noqa: RUF001


def test_columns_that_nobody_measured_are_left_out(comparison: list[RunRecord]) -> None:
    assert "Peak memory (MiB)" not in metric_table(summarise(comparison), columns_in("training")).headings


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("top1", 0.97814, "97.81"),
        ("gap", -0.0191, "−0.019"),  # noqa: RUF001
        ("gap", 0.0191, "+0.019"),
        ("gap", -0.0001, "0.000"),
        ("images_per_second", 12345.6, "12,346"),
        ("peak_memory_bytes", 3 * 2**20, "3"),
    ],
)
def test_numbers_in_their_units(metric: str, value: float, text: str) -> None:
    assert column_of(metric).number(value) == text


def test_one_seed_has_no_sd() -> None:
    assert column_of("top1").cell(Statistic(0.5, None, 1)) == "50.00"
    assert column_of("top1").cell(None) == "–"  # noqa: RUF001


def test_differences_carry_interval_pairs_and_verdict(comparison: list[RunRecord]) -> None:
    summary = summarise(comparison)
    rows = difference_table(summary).rows
    assert {row[0] for row in rows} == set(summary.methods[1:])
    assert len(rows) == 3 * (
        len(metrics_in("differences")) - 3
    )  # neither attack nor corruption nor other images were measured
    ece = next(row for row in rows if row[0] == "SDDropout()" and row[1] == "ECE")
    assert ece[4:] == ("3", "higher: worse")
    assert " to " in ece[3]


def test_markdown_cells_cannot_break_the_table() -> None:
    text = markdown(Table(("Method", "A|B"), (("x|y\n<script>`*", "1"),)))
    assert text.splitlines()[2] == r"| x\|y &lt;script&gt;\`\* | 1 |"


def test_the_terminal_shows_brackets_as_they_are(comparison: list[RunRecord]) -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(terminal(Table(("Method", "n"), (("[red]x[/red]", "1"),)), title="T"))
    assert "[red]x[/red]" in console.export_text()
    console.file.close()


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_on_a_terminal_fits(comparison: list[RunRecord], width: int) -> None:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(terminal_table(summarise(comparison), title="Digits", width=width))
    shown = capture.get()
    assert shown.startswith("Digits (3 seeds, mean ± sd)")
    for record in comparison:
        assert f" {record.method} " in shown  # on one line
    assert "…" not in shown
    assert ("Brier" in shown) == (width == 120)


def test_the_seeds_are_a_column_where_they_differ(comparison: list[RunRecord]) -> None:
    table = terminal_table(summarise(comparison[:-1]), title="Digits", width=80)
    assert str(table.title) == "Digits"
    assert table.columns[-1].header.plain == "Seeds"  # type: ignore[union-attr]
