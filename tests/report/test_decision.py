"""The rule that recommends a method, on records whose right answer is known, and the command that it leads to."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from selfdistill.cli.app import app
from selfdistill.records import RunRecord, summarise
from selfdistill.report.decision import decide, next_step
from selfdistill.report.verdict import verdict
from tests.changing import changed

Make = Callable[..., RunRecord]

TOP1, ECE = (0.80, 0.81, 0.82), (0.10, 0.11, 0.12)  # of cross-entropy, seed by seed
BETTER, SAME, WORSE = (0.83, 0.841, 0.85), (0.801, 0.81, 0.819), (0.77, 0.781, 0.79)  # by 3 points, 0 and -3
CALIBRATED, OVERSHOT = (0.05, 0.061, 0.07), (0.30, 0.311, 0.32)
SCATTERED = (0.80, 0.83, 0.80)  # 0 +- 5 points
NLL = (0.60, 0.61, 0.62)
LIKELIER, UNLIKELIER, UNCLEAR = (0.50, 0.511, 0.52), (0.70, 0.711, 0.72), (0.40, 0.80, 0.60)


def records(
    make: Make,
    method: str,
    top1: Sequence[float],
    ece: Sequence[float],
    n: int = 150,
    nll: Sequence[float] = NLL,
    scaled: Sequence[float] | None = None,
) -> list[RunRecord]:
    found = []
    for seed in range(len(top1)):
        record = make(method, seed, n=n, epochs=1)
        for metric, values in (("top1", top1), ("ece", ece), ("nll", nll)):
            record = changed(record, values[seed], "evaluation", metric)
        if scaled is None:
            record = changed(record, None, "evaluation", "scaled")
        else:
            record = changed(record, scaled[seed], "evaluation", "scaled", "nll")
        found.append(record)
    return found


@pytest.mark.parametrize(
    ("top1", "ece", "kind"),
    [
        (BETTER, ECE, "use"),
        (BETTER, CALIBRATED, "use"),
        (SAME, CALIBRATED, "use"),
        (SAME, ECE, "keep"),
        (SCATTERED, ECE, "keep"),
        (WORSE, ECE, "keep"),
        (WORSE, CALIBRATED, "keep"),
        (BETTER, OVERSHOT, "keep"),
        (SAME, OVERSHOT, "keep"),
        (SCATTERED, CALIBRATED, "few seeds"),
        (BETTER[:2], CALIBRATED[:2], "few seeds"),
        (BETTER[:1], CALIBRATED[:1], "few seeds"),
    ],
)
def test_a_method_is_used_only_if_it_clearly_helps(
    make_record: Make, top1: Sequence[float], ece: Sequence[float], kind: str
) -> None:
    found = decide(
        summarise([*records(make_record, "CrossEntropy()", TOP1, ECE), *records(make_record, "A()", top1, ece)])
    )
    headline = {"use": "Use A()", "keep": "Keep cross-entropy", "few seeds": "Too few seeds to decide"}[kind]
    assert (found.kind, found.headline, found.method) == (kind, headline, "A()")


@pytest.mark.parametrize(
    ("top1", "ece", "nll", "kind", "by"),
    [
        (BETTER, OVERSHOT, LIKELIER, "use", "top1"),
        (SAME, OVERSHOT, LIKELIER, "use", "nll"),
        (SAME, CALIBRATED, UNCLEAR, "use", "ece"),
        (SAME, CALIBRATED, UNLIKELIER, "keep", ""),
        (BETTER, CALIBRATED, UNLIKELIER, "keep", ""),
        (WORSE, CALIBRATED, LIKELIER, "keep", ""),
        (SCATTERED, ECE, LIKELIER, "few seeds", ""),
    ],
)
def test_probabilities_are_judged_by_the_nll_before_the_ece(
    make_record: Make, top1: Sequence[float], ece: Sequence[float], nll: Sequence[float], kind: str, by: str
) -> None:
    runs = records(make_record, "CrossEntropy()", TOP1, ECE) + records(make_record, "A()", top1, ece, nll=nll)
    found = decide(summarise(runs))
    assert (found.kind, found.by) == (kind, by)


@pytest.mark.parametrize(
    ("top1", "nll", "scaled", "kind", "headline"),
    [
        (BETTER, UNLIKELIER, NLL, "use", "Use A(), with a temperature"),
        (BETTER, UNLIKELIER, LIKELIER, "use", "Use A(), with a temperature"),
        (BETTER, UNLIKELIER, UNLIKELIER, "keep", "Keep cross-entropy"),
        (BETTER, NLL, UNLIKELIER, "use", "Use A()"),
        (SAME, UNLIKELIER, LIKELIER, "keep", "Keep cross-entropy"),
    ],
)
def test_worse_probabilities_that_a_temperature_mends_do_not_hold_a_better_accuracy_back(
    make_record: Make,
    top1: Sequence[float],
    nll: Sequence[float],
    scaled: Sequence[float],
    kind: str,
    headline: str,
) -> None:
    runs = records(make_record, "CrossEntropy()", TOP1, ECE, scaled=NLL)
    summary = summarise([*runs, *records(make_record, "A()", top1, ECE, nll=nll, scaled=scaled)])
    found = decide(summary)
    assert (found.kind, found.headline) == (kind, headline)
    assert found.needs_temperature == headline.endswith("temperature")
    assert ("temperature scaling" in verdict(summary).decided) == found.needs_temperature


def test_a_method_that_needs_no_temperature_goes_first(make_record: Make) -> None:
    most = [value + 0.01 for value in BETTER]
    runs = records(make_record, "CrossEntropy()", TOP1, ECE, scaled=NLL)
    runs += records(make_record, "A()", most, ECE, nll=UNLIKELIER, scaled=NLL)
    runs += records(make_record, "B()", BETTER, ECE, scaled=NLL)
    assert decide(summarise(runs)).headline == "Use B()"


def test_a_temperature_is_fitted_where_there_is_none(make_record: Make, tmp_path: Path) -> None:
    runs = records(make_record, "CrossEntropy()", TOP1, ECE, scaled=NLL)
    runs += records(make_record, "A()", BETTER, ECE, nll=UNLIKELIER, scaled=NLL)
    summary = summarise(saved(runs, tmp_path))
    for command in ("calibrate", "predict"):
        step = next_step(decide(summary), summary, runs, [tmp_path])
        assert step is not None
        words = shlex.split(step.command)[1:]
        app.parse_args(words)
        assert words[:2] == [command, str(tmp_path / "A()-0")]
        (tmp_path / "A()-0" / "validation.npz").touch()


def test_below_a_hundred_test_images_nothing_is_decided(make_record: Make) -> None:
    for n, kind in ((99, "few images"), (100, "use")):
        runs = records(make_record, "CrossEntropy()", TOP1, ECE, n) + records(make_record, "A()", BETTER, ECE, n)
        assert decide(summarise(runs)).kind == kind


def test_the_largest_clear_gain_in_accuracy_wins(make_record: Make) -> None:
    most = [value + 0.01 for value in BETTER]
    methods = {"A()": (SAME, CALIBRATED), "B()": (BETTER, ECE), "C()": (most, ECE), "D()": (WORSE, ECE)}
    runs = records(make_record, "CrossEntropy()", TOP1, ECE)
    runs += [run for name, values in methods.items() for run in records(make_record, name, *values)]
    assert decide(summarise(runs)).method == "C()"


def test_the_nll_goes_before_the_ece_where_no_accuracy_is_better(make_record: Make) -> None:
    runs = records(make_record, "CrossEntropy()", TOP1, ECE) + records(make_record, "A()", SAME, [0.0, 0.001, 0.0])
    runs += records(make_record, "B()", SAME, ECE, nll=LIKELIER)
    assert decide(summarise(runs)).method == "B()"


def saved(runs: list[RunRecord], folder: Path) -> list[RunRecord]:
    for run in runs:
        (folder / run.name).mkdir(parents=True)
        run.save(folder / run.name / "result.json")
    return runs


@pytest.mark.parametrize(
    ("top1", "n", "start"),
    [
        (BETTER, 150, ["predict", "A()-0"]),
        (WORSE, 150, ["predict", "CrossEntropy()-0"]),
        (SCATTERED, 150, ["compare", "--recipe"]),
        (BETTER[:2], 150, ["compare", "--recipe"]),
        (BETTER, 50, ["compare", "--recipe"]),
    ],
)
def test_the_next_command_is_ready_to_copy(
    make_record: Make, tmp_path: Path, top1: Sequence[float], n: int, start: list[str]
) -> None:
    folder = tmp_path / "my runs"
    runs = records(make_record, "CrossEntropy()", TOP1, ECE, n) + records(make_record, "A()", top1, ECE[: len(top1)], n)
    summary = summarise(saved(runs, folder))
    step = next_step(decide(summary), summary, runs, [tmp_path])
    assert step is not None
    command, *words = shlex.split(step.command)
    assert command == "selfdistill"
    app.parse_args(words)
    assert words[0] == start[0]
    if words[0] == "predict":
        assert words[1] == str(folder / start[1])
    else:
        assert words[words.index("--seeds") + 1] == "6"
        assert Path(words[words.index("--recipe") + 1]).parents[1] == folder
    assert next_step(decide(summary), summary, runs, [tmp_path / "elsewhere"]) is None
