import re
from collections.abc import Callable

import pytest

from selfdistill.records import RunRecord, summarise
from selfdistill.report.verdict import Line, Verdict, confident, verdict
from tests.changing import changed

Make = Callable[..., RunRecord]


def runs(make: Make, method: str, spread: float, claim: float, seeds: int = 4) -> list[RunRecord]:
    return [make(method, seed, spread=spread, claim=claim, n=4000) for seed in range(seeds)]


def line(said: Verdict, method: str, title: str) -> Line:
    (found,) = [
        one for finding in said.findings if finding.method == method for one in finding.lines if one.title == title
    ]
    return found


def test_each_side_of_a_method_is_judged(comparison: list[RunRecord]) -> None:
    said = verdict(summarise(comparison))
    assert said.decision.headline == "Use SDDropout(weight=0.1)"
    assert [one.effect for one in said.lines] == ["better", "better"]
    gain = summarise(comparison).differences["SDDropout(weight=0.1)", "top1"].mean
    assert gain is not None
    assert f"decided by Top-1, +{100 * gain:.2f} points" in said.compared
    assert line(said, "SDDropout()", "Accuracy").effect == line(said, "SDDropout()", "Confidence").judged == "worse"
    assert line(said, "CrossEntropy()", "Accuracy").judged == ""


def test_a_trade_off_is_pointed_out(comparison: list[RunRecord]) -> None:
    worse = [
        changed(run, 5.0, "evaluation", "nll") if run.method == "SDDropout(weight=0.1)" else run for run in comparison
    ]
    assert "With SDDropout(weight=0.1) the network is more often right" in verdict(summarise(worse)).remarks[0]


def test_an_overshoot_is_named_with_its_signs(make_record: Make) -> None:
    records = runs(make_record, "CrossEntropy()", 4, 2.2) + runs(make_record, "SDDropout()", 4, 0.3)
    text = line(verdict(summarise(records)), "SDDropout()", "Confidence").text
    assert "under-confident by" in text
    assert "it overshoots: an over-confident network became under-confident" in text


def test_a_network_without_over_confidence_had_nothing_to_mend(make_record: Make) -> None:
    under = runs(make_record, "CrossEntropy()", 4, 0.8) + runs(make_record, "SDDropout()", 4, 0.3)
    text = line(verdict(summarise(under)), "SDDropout()", "Confidence").text
    assert "the network was under-confident already" in text


def test_one_seed_gives_no_verdict(make_record: Make) -> None:
    said = verdict(summarise([make_record(suite=True), make_record("SDDropout()", spread=8.0, suite=True)]))
    assert said.decision.kind == "few seeds"
    assert [one.judged for one in said.lines] == ["one seed: no interval"] * 3
    assert "from one pair of runs, so this may be the seed" in said.lines[0].text


def test_one_run_states_its_signed_gap(make_record: Make) -> None:
    said = verdict(summarise([make_record(claim=2.0)]))
    assert said.decision.kind == "only"
    assert "over-confident by" in said.lines[1].text
    assert said.compared == ""


@pytest.mark.parametrize(
    ("train", "words"),
    [(0.5, "does not fit its training images yet"), (0.999, "overfits"), (None, "")],
)
def test_remarks_say_how_far_the_baseline_fits(make_record: Make, train: float | None, words: str) -> None:
    one = changed(make_record(spread=3.0), train, "evaluation", "train_top1")
    remarks = verdict(summarise([one])).remarks
    assert any(words in remark for remark in remarks) if words else not remarks


def test_seeds_that_disagree_on_the_sign_are_not_averaged_in_silence(make_record: Make) -> None:
    records = [make_record(seed=seed, claim=claim) for seed, claim in enumerate((2.0, 0.6, 0.9))]
    assert "on average, but the seeds disagree" in verdict(summarise(records)).lines[1].text


def test_a_small_gap_is_neither() -> None:
    assert confident(0.0049) == "neither over- nor under-confident (+0.5 points)"
    assert confident(-0.0051) == "under-confident by 0.5 points"


def test_few_seeds_are_pointed_out(comparison: list[RunRecord]) -> None:
    assert verdict(summarise(comparison)).remarks[-1].startswith("With 3 seeds only large differences")


def test_robustness_is_judged_by_attack_and_corruption(whole_suite: list[RunRecord]) -> None:
    said = verdict(summarise(whole_suite))
    baseline, better, worse = (
        line(said, method, "Robustness") for method in ("CrossEntropy()", "SDDropout()", "LabelSmoothing()")
    )
    assert (baseline.judged, better.judged, worse.judged) == ("", "better", "worse")
    pattern = (
        r"Under attack \(PGD-20 at 2/255\) .*; under corruption \(mCA\) \d\d\.\d\d %, \+\d\.\d\d points .*95 % interval"
    )
    assert re.match(pattern, better.text)


def test_attack_and_corruption_may_disagree(whole_suite: list[RunRecord]) -> None:
    runs = [
        changed(run, 0.01, "evaluation", "shift", "mca") if run.method == "SDDropout()" else run for run in whole_suite
    ]
    robustness = line(verdict(summarise(runs)), "SDDropout()", "Robustness")
    assert (robustness.effect, robustness.judged) == ("unclear", "better and worse")
    assert robustness.text.endswith(": worse.")


def test_too_few_images_are_not_called_better(whole_suite: list[RunRecord]) -> None:
    runs = [
        changed(changed(run, 99, "evaluation", "robustness", "pgd_n"), 99, "evaluation", "shift", "n")
        for run in whole_suite
    ]
    said = verdict(summarise(runs))
    assert {line(said, method, "Robustness").judged for method in ("SDDropout()", "LabelSmoothing()")} == {
        "too few images to say"
    }


def test_what_was_not_measured_is_not_judged(whole_suite: list[RunRecord]) -> None:
    runs = [changed(run, None, "evaluation", "robustness") for run in whole_suite]
    assert "attack" not in line(verdict(summarise(runs)), "SDDropout()", "Robustness").text
    runs = [changed(run, None, "evaluation", "shift") for run in runs]
    assert [one.title for one in verdict(summarise(runs)).lines] == ["Accuracy", "Confidence"]
