import io
from dataclasses import replace

from rich.console import Console

from selfdistill.train.progress import Bar, Lines, Update, describe, display_on, progress_bar

STEP = Update(
    kind="step",
    epoch=2,
    epochs=30,
    step=150,
    steps=3000,
    loss=2.5,
    terms={"ce": 1.6, "sdd": 0.1},
    metrics={"train": 0.25},
    images_per_second=1234.5,
    seconds_left=3725.0,
)


def test_a_line_has_everything() -> None:
    wanted = "epoch 2/30  1:02:05 left  loss 2.500 (ce 1.600  sdd 0.100)  train 25.0%  1,234 images/s"
    assert describe(STEP) == wanted
    alone = replace(STEP, terms={"ce": 2.5}, metrics={"train": 0.25, "test": 0.5}, kind="evaluate")
    assert describe(alone) == "epoch 2/30  evaluating  loss 2.500  train 25.0%  test 50.0%  1,234 images/s"
    detector = replace(alone, metrics={}, images_per_second=0.42)
    assert describe(detector) == "epoch 2/30  evaluating  loss 2.500  0.4 images/s"


def test_lines_are_throttled_but_the_last_one_comes() -> None:
    text = io.StringIO()
    lines = Lines(Console(file=text, width=40), "digits", every=1000.0)
    lines(STEP)
    for epoch in range(1, 31):
        lines(replace(STEP, kind="epoch", epoch=epoch))
    printed = text.getvalue().splitlines()
    assert [line.split("  ")[0] for line in printed] == ["digits: epoch 1/30", "digits: epoch 30/30"]


def test_no_terminal_no_bar() -> None:
    text = io.StringIO()
    with progress_bar("[digits]", Console(file=text)) as progress:
        progress(replace(STEP, kind="epoch"))
    assert text.getvalue().startswith("[digits]: epoch 2/30")
    assert "\x1b" not in text.getvalue()


def test_a_bar_on_a_terminal() -> None:
    text = io.StringIO()
    with progress_bar("digits", Console(file=text, force_terminal=True, width=160)) as progress:
        progress(STEP)
        assert isinstance(progress, Bar)
        (task,) = progress.display.tasks
        assert (task.completed, task.total) == (150, 3000)
    assert "epoch 2/30" in text.getvalue()


def test_bars_share_a_display() -> None:
    display = display_on(Console(file=io.StringIO(), force_terminal=True))
    with display:
        grid = display.add_task("grid", total=6, status="")
        bar = Bar(display, "run 1")
        bar(STEP)
        assert [task.description for task in display.tasks] == ["grid", "run 1"]
        bar.close()
        assert [task.id for task in display.tasks] == [grid]
