"""`selfdistill reproduce`."""

from pathlib import Path

import pytest

from selfdistill.cli import main
from selfdistill.paper import (
    TABLES,
)
from tests.paper.conftest import Make


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["tabel12"], "'table12'"),
        (["Table 15"], "'Table 15'"),
        (["Tabel 12"], "'table12'"),
        (["nonsense"], "'nonsense'"),
        (["table1", "--list", "--print-commands"], "--list and --print-commands"),
        (["table1", "--seeds", str(2**63)], "--seeds"),
        (["table1", "--seeds", "1", "1"], "--seeds"),
        (["table1", "--scale", "huge"], "--scale"),
        (["table1", "--jobs", "0"], "--jobs"),
        (["figure1", "--jobs", "0"], "--jobs"),
        (["table1", "--ray", "auto", "--cpus", "0"], "--cpus"),
        ([], "TABLE"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(
    words: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["reproduce", *words])
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("selfdistill: error: ")
    assert named in printed
    assert printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_list_without_a_table_covers_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("selfdistill.paper.listing.estimate_seconds", lambda *_: 60.0)
    with pytest.raises(SystemExit) as end:
        main(["reproduce", "--list", "--scale", "smoke", "--out", str(tmp_path)])
    printed = capsys.readouterr()
    assert end.value.code == 0, printed.err
    assert [name for name in TABLES if f"{name}: " not in printed.out] == []
    assert list(tmp_path.iterdir()) == []


def test_nothing_missing_and_nothing_measured_are_reported(
    make: Make, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make("table12")
    for words, code, said in (
        (["table12", "--scale", "smoke", "--out", out, "--print-commands"], 0, "No run is missing"),
        (
            ["table3", "--out", tmp_path],
            2,
            "error: no cell has a number: ImageNet is only trained on at",
        ),
        (["table3", "--out", tmp_path / "table3.md" / "x"], 2, "table3.md is a file, not a folder: choose another --o"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["reproduce", *map(str, words)])
        assert end.value.code == code
        assert said in capsys.readouterr().err


def test_reproduce_prints_the_numbers_and_the_page(make: Make, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("table12")
    for words, wanted in (
        (["--out", out], ["75.7 %", "Scale smoke", f"Page: {out / 'table12.html'}"]),
        (["--out", out, "--list"], ["1 of 1", "No run is missing."]),
    ):
        with pytest.raises(SystemExit) as end:
            main(["reproduce", "table12", "--scale", "smoke", *map(str, words)])
        printed = capsys.readouterr()
        assert end.value.code == 0, printed.err
        assert all(text in printed.out for text in wanted)
