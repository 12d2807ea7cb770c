"""Texts of strangers (names of files and classes, titles, values in YAML) are shown as they are, and never in full."""

import csv
import io
import re
import sys
import warnings
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from selfdistill.cli import main
from selfdistill.cli.show import print_lines, print_skipped
from selfdistill.progress import TRAINING, Display, Progress, Training, print_line, track
from selfdistill.records import write_atomically
from selfdistill.report.pages import render
from selfdistill.report.style import Panel, heading, panel_svg
from selfdistill.report.tables import Table, escape_markdown, terminal
from selfdistill.runs.predict import Prediction, to_csv
from selfdistill.text import quote
from selfdistill.training.folder import RunFolder

HOSTILE = "a\x1b]0;pwned\x07\x1b[2J\x9b8m\u202eb[/x]:smile:[v2]"
SHOWN = r"a\x1b]0;pwned\x07\x1b[2J\x9b8m\u202eb[/x]:smile:[v2]"
EPOCH = Progress(TRAINING, 1, 1, training=Training(1, 1, 0.5, {HOSTILE: 0.5, "b": 0.5}, {}, 10.0, 0.0), epoch_done=True)


def steers(text: str) -> bool:
    """Whether a terminal would do anything but show the text."""
    return re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text) is not None


def printed(*things: object, terminal: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, width=300, force_terminal=terminal, color_system=None, legacy_windows=False)
    for thing in things:
        console.print(thing)
    return file.getvalue()


def test_a_table_shows_title_headings_and_cells_as_they_are() -> None:
    text = printed(terminal(Table((HOSTILE, "n"), ((HOSTILE, "1"),)), title=HOSTILE))
    assert text.count(SHOWN) == 3
    assert not steers(text)


@pytest.mark.parametrize("title", ["run on flowers [v2] (test)", "r[/x] on val", "[bold]x", "a :cat: b", "x \\[y]"])
def test_brackets_in_a_title_are_not_markup(title: str) -> None:
    assert title in printed(terminal(Table(("A",), (("1",),)), title=title))


def test_progress_shows_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    console = Console(file=file, width=300)
    Display(console).update(HOSTILE, EPOCH)
    print_line(console, HOSTILE)
    assert file.getvalue().count(SHOWN) == 3
    assert not steers(file.getvalue())
    display = Display(Console(file=file, width=300, force_terminal=True))
    display.update(HOSTILE, EPOCH)
    assert display.bars is not None
    (task,) = display.bars.tasks
    assert not steers(task.description + task.fields["status"])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(track([1, 2], HOSTILE, 2)) == [1, 2]  # markup in the title would raise


def test_what_commands_print_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines(HOSTILE, "second line")
    print_skipped([Path(HOSTILE)])
    out = capsys.readouterr().out
    assert out.splitlines()[:2] == [SHOWN, "second line"]
    assert not steers(out)


def test_an_error_is_one_short_line_without_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["evaluate", HOSTILE], ["train", "--data", HOSTILE], ["predict", "x" * 10**5, "y"], [HOSTILE]):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert not steers(line)
        assert len(line) < 2100


def test_a_warning_is_shown_once_and_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def warn_twice() -> list[str]:
        for _ in range(2):
            warnings.warn(UserWarning(HOSTILE), stacklevel=1)
        return []

    monkeypatch.setattr("selfdistill.report.lists.method_lines", warn_twice)
    monkeypatch.setattr(warnings, "filters", [("always", None, Warning, None, 0)])
    with pytest.raises(SystemExit):
        main(["methods", "--no-measure"])
    assert capsys.readouterr().err == f"selfdistill: warning: {SHOWN}\n"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r=", "\n=", " =", "\uff1d", "\uff20"])
def test_no_cell_of_a_csv_is_a_formula(start: str, tmp_path: Path) -> None:
    name = f"{start}HYPERLINK(1)"
    predictions = to_csv([Prediction(Path(f"{name}.png"), name, 1.0, (1.0,))], [name])
    RunFolder(tmp_path).write_log([{"epoch": 1, name: -0.5}])
    for text in (predictions, (tmp_path / "log.csv").read_text()):
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert not steers(text)
        assert not any(cell.lstrip()[:1] in set("=+@\uff1d\uff20") for cell in cells)
    assert cells[-1] == "-0.5", "a number stays one"


def test_pages_show_texts_as_they_are(tmp_path: Path) -> None:
    nothing = Table(("Epoch",), ())
    context = {"headline": "x", "results": nothing, "protocol": [], "facts": nothing, "log": nothing, "position": {}}
    title = f"{HOSTILE}<script>"
    for name in ("detector.html", "detector.md"):
        page = render(name, title=title, palette=(), **context)
        assert not steers(page)
        assert "<script>" not in page
        write_atomically(tmp_path / name, page.encode())
    svg = panel_svg(Panel("p", "", lambda figure: heading(figure.subplots(), HOSTILE)))
    assert SHOWN in "".join(ElementTree.fromstring(svg).itertext())
    assert escape_markdown("[a](http://b) `c` ~~d~~ $e$ <f>") == (r"\[a\](http://b) \`c\` \~\~d\~\~ \$e\$ &lt;f&gt;")


def test_a_value_in_a_message_has_eighty_characters() -> None:
    bomb: object = "x" * 1000
    for _ in range(40):  # 9 to the power of 40 values
        bomb = [bomb] * 9
    for value in (bomb, "x" * 10**6, 10**400, {"a": bomb}, b"\0" * 10**5, object()):
        assert len(quote(value)) <= 80
    for value in ("cat", 3, 0.5, None, (0.5, 0.75)):
        assert quote(value) == repr(value)
