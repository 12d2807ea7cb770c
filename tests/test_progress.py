import io
import logging
import re
import sys
from dataclasses import replace
from functools import partial
from types import ModuleType

import pytest
from rich.console import Console

from selfdistill.progress import (
    LOGGER,
    TRAINING,
    Counter,
    Display,
    Progress,
    Training,
    describe,
    progress_bar,
    stage_bars,
    track,
)

AT = Training(
    epoch=2, epochs=30, loss=2.5, terms={"ce": 1.6, "sdd": 0.1}, metrics={"train": 0.25}, images_per_second=1234.5,
    seconds_left=3725.0,
)  # fmt: skip
STEP = Progress(TRAINING, 150, 3000, "steps", training=AT)
ATTACKS = Progress("measuring attacks", 50, 2000)


def test_a_line_of_a_training_has_everything() -> None:
    wanted = "epoch 2/30  1:02:05 left  loss 2.500 (ce 1.600  sdd 0.100)  train 25.0%  1,234 images/s"
    assert describe(STEP) == wanted
    alone = replace(AT, terms={"ce": 2.5}, metrics={"train": 0.25, "test": 0.5})
    evaluating = replace(STEP, stage="evaluating", total=0, training=alone)
    assert describe(evaluating) == "epoch 2/30  evaluating  loss 2.500  train 25.0%  test 50.0%  1,234 images/s"
    detector = replace(ATTACKS, training=replace(alone, metrics={}, images_per_second=0.42))
    assert describe(detector) == "epoch 2/30  measuring attacks, 50 of 2,000 images  loss 2.500  0.4 images/s"


def test_a_line_of_anything_else_counts_its_units() -> None:
    assert describe(ATTACKS) == "measuring attacks, 50 of 2,000 images"
    assert describe(Progress("measuring", 1, 9, "methods", detail="BYOT")) == "measuring, 1 of 9 methods: BYOT"
    assert describe(Progress("downloading", 1, 4, unit="")) == "downloading, 25%"
    assert describe(Progress("downloading", 1, unit="")) == "downloading"


def test_a_counter_reports_from_nothing_to_all() -> None:
    told: list[Progress] = []
    count = Counter(told.append, "reading", 5)
    count(2)
    count(3)
    assert [(event.stage, event.done, event.total) for event in told] == [("reading", n, 5) for n in (0, 2, 5)]


def test_lines_are_few_but_the_last_one_comes() -> None:
    text = io.StringIO()
    lines = partial(Display(Console(file=text, width=40), every=1000.0).update, "digits")
    lines(STEP)
    for epoch in range(1, 31):
        lines(replace(STEP, training=replace(AT, epoch=epoch), epoch_done=True))
    for _ in range(3):
        lines(ATTACKS)
    printed = text.getvalue().splitlines()
    assert [line.split("  ")[0] for line in printed] == [
        "digits: epoch 1/30", "digits: epoch 30/30", "digits: measuring attacks",
    ]  # fmt: skip


def test_no_terminal_no_bar() -> None:
    text = io.StringIO()
    with progress_bar("[digits]", Console(file=text)) as progress:
        progress(replace(STEP, epoch_done=True))
    with stage_bars(Console(file=text)) as progress:
        progress(ATTACKS)
    assert text.getvalue().startswith("[digits]: epoch 2/30")
    assert text.getvalue().endswith("images/s\nmeasuring attacks\n")
    assert "\x1b" not in text.getvalue()


def test_a_bar_on_a_terminal_has_its_share_and_status() -> None:
    text = io.StringIO()
    with Display(Console(file=text, force_terminal=True, width=160)) as display:
        display.update("digits", STEP)
        assert display.bars is not None
        (task,) = display.bars.tasks
        assert (task.completed, task.total) == (150, 3000)
    assert "epoch 2/30" in text.getvalue()


@pytest.mark.parametrize("name", ["digits", "sddropout-weight-0.1-labelsmoothing-seed0"])
def test_eighty_columns_hold_the_bar_and_the_test_accuracy(name: str) -> None:
    text = io.StringIO()
    last = replace(STEP, done=1500, training=replace(AT, metrics={"train": 0.25, "test": 0.5}))
    with Display(Console(file=text, force_terminal=True, width=80, color_system=None)) as display:
        display.update(name, last)
    line = re.sub(r"\x1b\[[0-9?]*[a-zA-Z]", "", text.getvalue()).splitlines()[-1]
    assert len(line) <= 80
    assert line.startswith(name[:20])
    assert "━" in line
    assert "epoch 2/30" in line
    assert "test 50.0%" in line


def test_a_quiet_logger_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        LOGGER.setLevel(logging.WARNING)
        with progress_bar("digits") as progress:
            progress(replace(STEP, epoch_done=True))
        assert capsys.readouterr().err == ""
    finally:
        LOGGER.setLevel(logging.INFO)


def test_each_stage_has_its_bar_and_says_how_long_it_takes() -> None:
    with Display(Console(file=io.StringIO(), force_terminal=True)) as display:
        for event in (ATTACKS, replace(ATTACKS, done=2000), Progress("reading", 1)):
            display.update(event.stage, event)
        display.update("run", ATTACKS)
        assert display.bars is not None
        assert [task.description for task in display.bars.tasks] == ["measuring attacks", "reading", "run"]
        statuses = [task.fields["status"] for task in display.bars.tasks]
        assert statuses[0] == "2,000 of 2,000 images"
        assert statuses[2].startswith("measuring attacks, 50 of 2,000 images, 0:")
        assert statuses[2].endswith(" left")


@pytest.mark.parametrize("terminal", [True, False])
def test_jobs_share_a_display_and_are_counted(terminal: bool) -> None:
    text = io.StringIO()
    with Display(Console(file=text, force_terminal=terminal, width=100), jobs=6) as display:
        display.update("run 1", STEP)
        display.finish("run 1", "run 1: done")
        display.finish("run 0", "run 0: done before")  # without an event
        if display.bars is not None:
            (whole,) = display.bars.tasks
            assert (whole.completed, whole.total, whole.fields["status"]) == (2, 6, "2/6 runs")
    assert "[1/6] run 1: done" in text.getvalue()
    assert "[2/6] run 0: done before" in text.getvalue()


def test_items_are_yielded_with_and_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(track(iter("abc"), "reading", 3)) == ["a", "b", "c"]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(track(iter("abc"), "reading", 0)) == ["a", "b", "c"]


@pytest.mark.parametrize("installed", [True, False])
def test_a_notebook_has_bars_with_ipywidgets(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []

    class Output:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...
        def clear_output(self, wait: bool) -> None: ...

    monkeypatch.setattr("selfdistill.progress.find_spec", lambda name: installed or None)
    modules = {"ipywidgets": {"Output": Output}, "IPython": {}, "IPython.display": {"display": shown.append}}
    for name, members in modules.items():
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        vars(sys.modules[name]).update(members)
    with Display(Console(force_jupyter=True)) as display:
        assert (display.bars is not None) == installed
        display.update("run", Progress("reading", 1, 2))
    assert any(isinstance(one, Output) for one in shown) == installed
