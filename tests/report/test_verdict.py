import re
from collections.abc import Callable

import pytest

from selfdistill.records import RunRecord, summarise
from selfdistill.report.verdict import confident, verdict
from tests.changing import changed

Make = Callable[..., RunRecord]


def runs(make: Make, method: str, spread: float, claim: float, seeds: int = 4) -> list[RunRecord]:
    return [make(method, seed, spread=spread, claim=claim, n=4000) for seed in range(seeds)]


def test_a_method_that_helps_and_one_that_hurts(comparison: list[RunRecord]) -> None:
    said = verdict(summarise(comparison))
    assert "SDDropout(weight=0.1) raised top-1 accuracy over CrossEntropy(); SDDropout() lowered it" in said.headline
    assert (
        "LabelSmoothing() and SDDropout(weight=0.1) improved calibration; SDDropout() made it worse." in said.headline
    )


def test_when_nothing_helped_it_says_so(make_record: Make) -> None:
    same = runs(make_record, "CrossEntropy()", 4, 1) + runs(make_record, "SDDropout()", 4, 0.3)
    headline = verdict(summarise(same)).headline
    assert headline.startswith("No clear difference in top-1 accuracy to CrossEntropy(). ")
    assert "No method improved calibration; SDDropout() made it worse." in headline


def test_many_methods_are_counted_not_named(make_record: Make) -> None:
    methods = [f"SDDropout(weight={weight})" for weight in (0.1, 0.2, 0.3, 0.4, 0.5)]
    records = runs(make_record, "CrossEntropy()", 4, 1) + [
        record for method in methods for record in runs(make_record, method, 4, 0.3)
    ]
    assert "No method improved calibration; 5 methods made it worse." in verdict(summarise(records)).headline


def test_an_overshoot_is_named_with_its_signs(make_record: Make) -> None:
    records = runs(make_record, "CrossEntropy()", 4, 2.2) + runs(make_record, "SDDropout()", 4, 0.3)
    finding = verdict(summarise(records)).findings[1]
    assert "under-confident by" in finding.calibration
    assert "it overshoots: an over-confident network became under-confident" in finding.calibration


def test_a_network_without_over_confidence_had_nothing_to_mend(make_record: Make) -> None:
    under = runs(make_record, "CrossEntropy()", 4, 0.8) + runs(make_record, "SDDropout()", 4, 0.3)
    assert "the network was under-confident already" in verdict(summarise(under)).findings[1].calibration


def test_one_seed_gives_no_verdict(make_record: Make) -> None:
    said = verdict(summarise([make_record(), make_record("SDDropout()", spread=8.0)]))
    assert said.headline == "One seed for each method: no verdict on accuracy can be given. Nor on calibration."
    assert "from one pair of runs, so this may be the seed" in said.findings[1].accuracy


def test_one_run_states_its_signed_gap(make_record: Make) -> None:
    said = verdict(summarise([make_record(claim=2.0)]))
    assert said.headline.startswith("CrossEntropy() is right on ")
    assert "over-confident by" in said.headline
    assert said.headline.endswith("There is no second method to compare it with.")


@pytest.mark.parametrize(
    ("train", "words"),
    [(0.5, "does not fit its training images yet"), (0.999, "overfits"), (None, "")],
)
def test_remarks_say_how_far_the_baseline_fits(make_record: Make, train: float | None, words: str) -> None:
    one = changed(make_record(spread=3.0), train, "evaluation", "train_top1")
    remarks = verdict(summarise([one])).remarks
    assert any(words in remark for remark in remarks) if words else not remarks


def test_equal_methods_make_no_clear_difference(make_record: Make) -> None:
    same = [make_record(method, seed) for method in ("A()", "B()") for seed in range(3)]
    said = verdict(summarise(same)).headline
    assert said == "No clear difference in top-1 accuracy to A(). No clear difference in calibration."


def test_seeds_that_disagree_on_the_sign_are_not_averaged_in_silence(make_record: Make) -> None:
    records = [make_record(seed=seed, claim=claim) for seed, claim in enumerate((2.0, 0.6, 0.9))]
    assert "on average, but the seeds disagree" in verdict(summarise(records)).findings[0].calibration


def test_a_small_gap_is_neither() -> None:
    assert confident(0.0049) == "neither over- nor under-confident (+0.5 points)"
    assert confident(-0.0051) == "under-confident by 0.5 points"


def test_few_seeds_are_pointed_out(comparison: list[RunRecord]) -> None:
    assert verdict(summarise(comparison)).remarks[-1].startswith("With 3 seeds only large differences")


def test_robustness_is_one_more_sentence(whole_suite: list[RunRecord]) -> None:
    said = verdict(summarise(whole_suite))
    assert said.headline.endswith(
        "Under attack (PGD-20 at 2/255): SDDropout() better, LabelSmoothing() worse; under corruption (mCA): "
        "SDDropout() better, LabelSmoothing() worse; at telling other images apart (AUROC of ODIN): SDDropout() "
        "better, LabelSmoothing() worse."
    )
    baseline, better, _ = said.findings
    assert "(" not in baseline.robustness
    assert re.search(r"mCA \d\d\.\d\d % \(\+\d\.\d\d points, 95 % interval .*: better\)", better.robustness)


def test_no_clear_difference_in_robustness_is_said(make_record: Make) -> None:
    runs = [make_record(m, s, suite=True) for m in ("CrossEntropy()", "CrossEntropx()") for s in range(3)]
    assert verdict(summarise(runs)).headline.endswith(
        "No clear difference under attack (PGD-20 at 2/255) or under corruption (mCA) or at telling other images apart "
        "(AUROC of ODIN)."
    )


def test_what_was_not_measured_is_not_judged(make_record: Make, whole_suite: list[RunRecord]) -> None:
    runs = [changed(changed(run, None, "evaluation", "robustness"), (), "evaluation", "ood") for run in whole_suite]
    headline = verdict(summarise(runs)).headline
    assert "attack" not in headline
    assert "AUROC" not in headline
    assert headline.endswith("Under corruption (mCA): SDDropout() better, LabelSmoothing() worse.")
    one_seed = [make_record(m, suite=True) for m in ("CrossEntropy()", "SDDropout()")]
    said = verdict(summarise(one_seed))
    assert said.headline == "One seed for each method: no verdict on accuracy can be given. Nor on calibration."
    assert "one pair of runs)" in said.findings[1].robustness
