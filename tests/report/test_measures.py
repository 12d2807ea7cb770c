import statistics
from collections.abc import Callable
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from selfdistill.records import Evaluation, RunRecord
from selfdistill.records.evaluation import PUBLISHED, RiskCoverage, Robustness, RocCurve
from selfdistill.report.measured import Measured, every, measured, parts, table
from selfdistill.report.measures import sections
from selfdistill.report.measures.calibration import calibration_notes, calibration_sheet, scaling_findings
from selfdistill.report.measures.corruption import corruption_section
from selfdistill.report.measures.masks import masks_section
from selfdistill.report.measures.ood import mean_curve, ood_section, who_tells_apart
from selfdistill.report.measures.robustness import disagreements, flattery, hidden_gradients, robustness_section
from selfdistill.report.measures.selective import selective_section
from selfdistill.report.pages import Section, Sheet
from selfdistill.report.tables import Column, Table
from tests.changing import changed

Make = Callable[..., RunRecord]


def evaluations(records: list[RunRecord], method: str) -> list[Evaluation]:
    return [record.evaluation for record in records if record.method == method]


def sheets(section: Section | None) -> list[Sheet]:
    assert section is not None
    return [part for part in section.parts if isinstance(part, Sheet)]


def row(shown: Table, *first: str) -> dict[str, str]:
    (found,) = [r for r in shown.rows if r[: len(first)] == first]
    return dict(zip(shown.headings, found, strict=True))


def cell(values: list[float], digits: int = 1) -> str:
    return f"{100 * statistics.fmean(values):.{digits}f} ± {100 * statistics.stdev(values):.{digits}f}"


def attacked(
    *runs: tuple[list[float], list[float]], vanished: float = 0.0, name: str = "A()", index: int = 0
) -> Measured[Robustness]:
    """Each run: FGSM on PGD's images, and PGD, at 2/255 and 8/255."""
    by_seed = {
        seed: Robustness(
            n=10, clean=0.9, eps=(2 / 255, 8 / 255), fgsm=tuple(fgsm), paper_eps=0.2, paper=0.5, vanished=vanished,
            pgd_n=10, pgd_steps=20, pgd_clean=0.9, pgd=tuple(pgd), pgd_fgsm=tuple(fgsm),
        )
        for seed, (fgsm, pgd) in enumerate(runs)
    }  # fmt: skip
    return Measured(name, index, by_seed)


def quality_alone(evaluation: Evaluation) -> Evaluation:
    """As the first records had it."""
    new = {"adaptive_ece", "classwise_ece", "scaled", "selective", "robustness", "shift", "ood", "omitted"}
    values = msgspec.to_builtins(evaluation)
    return msgspec.convert({name: values[name] for name in values.keys() - new}, Evaluation)


def test_a_measure_that_nobody_took_has_no_section(make_record: Make) -> None:
    run = make_record(suite=True)
    titles = [section.title for section in sections(measured([run]))]
    assert titles == [
        "Selective prediction",
        "Robustness to attack",
        "Robustness to corruption",
        "Out-of-distribution detection",
        "Agreement under dropout masks",
    ]
    methods = (Measured("A()", 0, {0: quality_alone(run.evaluation)}),)
    assert sections(methods) == ()
    assert calibration_sheet(methods) is None
    assert calibration_notes(methods) == scaling_findings(methods) == ()


def test_runs_without_the_measure_are_left_out_of_its_mean_and_its_count(make_record: Make) -> None:
    with_it, without = make_record(suite=True), changed(make_record(seed=1, suite=True), None, "evaluation", "shift")
    only = make_record("SDDropout()")
    methods = measured([with_it, without, only])
    (shown,) = parts(methods, lambda evaluation: evaluation.shift)
    assert list(shown.by_seed) == [0]
    assert "SDDropout()" not in str(sheets(corruption_section(methods)))


def test_rows_count_the_seeds_where_there_are_several_runs() -> None:
    one = Measured("A()", 0, {0: 1.0})
    columns = [("n", Column("n", "n", digits=0), float)]
    assert table([one], columns).headings == ("Network", "n")
    two = table([one, Measured("B()", 1, {3: 2.0, 4: 3.0})], columns)
    assert two.headings == ("Method", "n", "Seeds")
    assert two.rows[1][-1] == "2"


def test_numbers_of_images_that_differ_are_shown_as_a_range() -> None:
    methods = [Measured("A()", 0, {0: 1000, 1: 300}), Measured("B()", 1, {0: 500})]
    assert every(methods, lambda n: n) == "300 to 1,000"
    assert every(methods, lambda n: None) == "–"  # noqa: RUF001


def test_attacks_are_mean_and_sd_with_their_protocol(whole_suite: list[RunRecord]) -> None:
    section = robustness_section(measured(whole_suite))
    fgsm, pgd = sheets(section)
    runs = [found for e in evaluations(whole_suite, "SDDropout()") if (found := e.robustness)]
    shown = row(fgsm.table, "SDDropout()")
    assert shown["Clean"] == cell([r.clean for r in runs])
    assert shown["0.5/255"] == cell([r.fgsm[0] for r in runs])
    assert shown["8/255"] == cell([r.fgsm[4] for r in runs])
    assert shown["Paper"] == cell([r.paper for r in runs])
    assert shown["No gradient"] == cell([r.vanished for r in runs])
    assert row(pgd.table, "SDDropout()")["2/255"] == cell([r.pgd[2] for r in runs])
    assert fgsm.caption == "Accuracy (%) under FGSM, 1,500 test images"
    assert pgd.caption == "Accuracy (%) under PGD-20, 1,000 of them, evenly spaced"
    assert section is not None
    (paper,) = [note for note in section.notes if note.startswith("Paper: ")]
    assert "eps = 0.2 in normalised units" in paper
    assert "not comparable with other papers' FGSM" in paper


BASE = attacked(([0.50, 0.30], [0.20, 0.000]), ([0.52, 0.31], [0.22, 0.001]), ([0.51, 0.32], [0.21, 0.0]), name="B()")


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        # higher under FGSM at 2/255, and under PGD too: nothing to say
        ([([0.60, 0.30], [0.30, 0.0]), ([0.62, 0.31], [0.32, 0.0]), ([0.61, 0.32], [0.31, 0.0])], []),
        # no clear difference under FGSM
        ([([0.40, 0.30], [0.20, 0.0]), ([0.70, 0.31], [0.22, 0.0]), ([0.51, 0.32], [0.21, 0.0])], []),
        (
            [([0.60, 0.30], [0.20, 0.0]), ([0.62, 0.31], [0.23, 0.0]), ([0.61, 0.32], [0.20, 0.0])],
            [
                "above B() at 2/255: +10.0 points (95 % interval +10.0 to +10.0)",
                "PGD does not confirm FGSM on A()",
                "PGD shows no clear difference: 0.0 points",
            ],
        ),
        (
            [([0.40, 0.30], [0.30, 0.0]), ([0.42, 0.31], [0.32, 0.0]), ([0.41, 0.32], [0.31, 0.0])],
            [
                "below B() at 2/255: −10.0",  # noqa: RUF001
                "FGSM and PGD disagree on A()",
                "PGD puts it on the other side: +10.0 points",
            ],
        ),
        # PGD leaves nothing of either
        (
            [([0.50, 0.40], [0.20, 0.0]), ([0.52, 0.41], [0.22, 0.0]), ([0.51, 0.42], [0.21, 0.0])],
            ["above B() at 8/255: +10.0", "PGD breaks both, leaving 0.0 % and 0.0 % right"],
        ),
        # PGD's difference is as large and only less certain
        ([([0.60, 0.30], [0.20, 0.0]), ([0.62, 0.31], [0.52, 0.0]), ([0.61, 0.32], [0.31, 0.0])], []),
        # one seed in common: 2 points count
        ([([0.53, 0.30], [0.21, 0.0])], ["above B() at 2/255: +3.0 points (one pair of runs)"]),
        ([([0.515, 0.30], [0.20, 0.0])], []),
    ],
)
def test_fgsm_and_pgd_disagree(runs: list[tuple[list[float], list[float]]], words: list[str]) -> None:
    said = disagreements([BASE, attacked(*runs, name="A()", index=1)])
    assert len(said) == bool(words)
    for word in words:
        assert word in said[0]


def test_where_they_disagree_at_several_eps_the_standing_one_is_told() -> None:
    flattered = [([fgsm + 0.1, eight + 0.2], pgd) for fgsm, eight, pgd in _triples(BASE)]
    (said,) = disagreements([BASE, attacked(*flattered, index=1)])
    assert "above B() at 2/255, 8/255; at 2/255: +10.0 points" in said


def _triples(method: Measured[Robustness]) -> list[tuple[float, float, list[float]]]:
    return [(*attacks.pgd_fgsm, list(attacks.pgd)) for attacks in method.values]


def test_hidden_gradients_are_told_from_five_per_cent_on() -> None:
    run = ([0.5, 0.3], [0.2, 0.0])
    assert hidden_gradients([attacked(run, vanished=0.05)]) == ()
    (said,) = hidden_gradients([attacked(run, vanished=0.051), attacked(run, name="B()", index=1)])
    assert "A() (5.1 %)" in said
    assert "B()" not in said


def test_a_single_network_is_told_where_fgsm_flatters_most() -> None:
    (said,) = flattery([attacked(([0.5, 0.4], [0.45, 0.0]))])
    assert "at 8/255 it leaves 40.0 % right, PGD-20 on the same images 0.0 %" in said
    assert flattery([attacked(([0.5, 0.02], [0.49, 0.01]))]) == ()
    assert flattery([attacked(([0.5, 0.4], [0.45, 0.0])), attacked(([0.5, 0.4], [0.45, 0.0]), name="B()")]) == ()


def test_corruption_by_severity_and_by_corruption(whole_suite: list[RunRecord]) -> None:
    by_severity, by_corruption = sheets(corruption_section(measured(whole_suite)))
    runs = [found for e in evaluations(whole_suite, "SDDropout()") if (found := e.shift)]
    shown = row(by_severity.table, "SDDropout()")
    each = [[a for of in r.accuracy.values() for a in of] for r in runs]
    assert shown["mCA"] == cell([statistics.fmean(values) for values in each], 2)
    assert shown["Severity 5"] == cell([statistics.fmean(of[4] for of in r.accuracy.values()) for r in runs])
    assert shown["Clean"] == cell([e.top1 for e in evaluations(whole_suite, "SDDropout()")])
    assert len(by_corruption.table.rows) == 15 + 1
    assert by_corruption.table.headings == ("Corruption", "CrossEntropy()", "SDDropout()", "LabelSmoothing()")
    fog = [statistics.fmean(r.accuracy["fog"]) for r in runs]
    assert row(by_corruption.table, "Fog")["SDDropout()"] == cell(fog)


def test_clean_beside_mca_is_of_the_same_runs(make_record: Make) -> None:
    runs = [make_record(seed=seed, suite=True) for seed in range(3)]
    for name, value in (("shift", None), ("n", 9), ("top1", 0.0)):
        runs[2] = changed(runs[2], value, "evaluation", name)
    section = corruption_section(measured(runs))
    shown = row(sheets(section)[0].table, "CrossEntropy()")
    assert (shown["Clean"], shown["Seeds"]) == (cell([run.evaluation.top1 for run in runs[:2]]), "2")
    assert section is not None
    assert "Clean: the 1,500 test images as they are" in section.notes


def test_whose_corruptions_they_are_is_said(make_record: Make) -> None:
    runs = [make_record(suite=True), make_record("SDDropout()", suite=True)]

    def explained() -> str:
        section = corruption_section(measured(runs))
        assert section is not None
        return section.explain

    assert "our own corruptions of the test images, a substitute" in explained()
    assert "not with Table 6" in explained()
    runs[0] = changed(runs[0], PUBLISHED, "evaluation", "shift", "source")
    assert "not alike: SDDropout() saw our own corruptions" in explained()
    runs[1] = changed(runs[1], PUBLISHED, "evaluation", "shift", "source")
    assert "the published arrays" in explained()
    assert "substitute" not in explained()


def test_detectors_by_method_and_in_full(whole_suite: list[RunRecord]) -> None:
    section = ood_section(measured(whole_suite))
    auroc, fpr, whole = sheets(section)[:3]
    runs = [evaluation.ood[0].detectors for evaluation in evaluations(whole_suite, "LabelSmoothing()")]
    assert auroc.caption == "photographs: AUROC (%)"
    assert row(auroc.table, "LabelSmoothing()")["energy"] == cell([r["energy"].metrics.auroc for r in runs])
    fprs = [r["ODIN fixed"].metrics.fpr_at_95_tpr for r in runs]
    assert row(fpr.table, "LabelSmoothing()")["ODIN fixed"] == cell(fprs)
    assert whole.folded
    assert len(whole.table.rows) == 3 * 6
    released = row(whole.table, "LabelSmoothing()", "ODIN released")
    names = {
        "AUROC": "auroc", "FPR at 95 % TPR": "fpr_at_95_tpr", "Error": "detection_error", "AUPR in": "aupr_in",
        "AUPR out": "aupr_out", "Balanced in": "balanced_aupr_in", "Balanced out": "balanced_aupr_out",
    }  # fmt: skip
    for heading, name in names.items():
        assert released[heading] == cell([getattr(r["ODIN released"].metrics, name) for r in runs])
    eps = [r["ODIN released"].eps or 0.0 for r in runs]
    assert released["ODIN's eps"] == f"{min(eps):g} to {max(eps):g}"
    assert row(whole.table, "LabelSmoothing()", "ODIN fixed")["ODIN's eps"] == "0.0014"
    assert row(whole.table, "LabelSmoothing()", "energy")["ODIN's eps"] == "–"  # noqa: RUF001


def test_each_set_says_its_protocol(whole_suite: list[RunRecord]) -> None:
    section = ood_section(measured(whole_suite))
    assert section is not None
    notes = " ".join(section.notes)
    for words in (
        "photographs: 562 images, shorter side to 32 px, central square; against 1,500 test images",
        "svhn: 2,000 images",
        "T = 1000 and one gradient step of eps = 0.0014",
        "750 test images and 281 of photographs, 750 test images and 1,000 of svhn, which are then not scored",
        "dropout off",
    ):
        assert words in notes, words
    assert "In-distribution is the positive class" in section.explain


def test_who_tells_other_images_apart_is_said(whole_suite: list[RunRecord]) -> None:
    def auroc(runs: list[RunRecord], value: float, *detectors: str) -> list[RunRecord]:
        for name in detectors:
            runs = [changed(r, value, "evaluation", "ood", 1, "detectors", name, "metrics", "auroc") for r in runs]
        return runs

    def said(runs: list[RunRecord]) -> str:
        return who_tells_apart(measured(runs))[1]

    blind = auroc(whole_suite, 0.51, "max softmax", "ODIN fixed")
    best = auroc(blind, 0.93, "Mahalanobis")
    assert said(best).startswith("None of the networks tells svhn from the test images by its confidence")
    assert said(best).endswith(
        "(AUROC at most 51.0 %, 50 % is chance). Mahalanobis does best, with an AUROC of 93.0 %."
    )
    others = ("max logit", "energy", "Mahalanobis")
    assert said(auroc(auroc(blind, 0.4, *others), 0.99, "ODIN released")).endswith("Nor does any other detector.")
    seen = said(auroc(best, 0.8, "max softmax"))
    assert seen.startswith("svhn: by confidence the AUROC is at most 80.0 %")
    section = ood_section(measured(best))
    assert section is not None
    assert section.findings[1] == said(best)
    assert who_tells_apart(measured(best), blind=True) == (said(best),)


def test_a_measure_of_few_images_tells_no_networks_apart(whole_suite: list[RunRecord]) -> None:
    few = [
        changed(changed(r, 20, "evaluation", "robustness", "pgd_n"), 20, "evaluation", "shift", "n")
        for r in whole_suite
    ]
    for section in (robustness_section(measured(few)), corruption_section(measured(few))):
        assert section is not None
        assert section.findings[0] == "Only 20 images: too few images to say which network is better."


def test_a_method_without_a_set_or_a_detector_has_a_dash(make_record: Make) -> None:
    runs = [make_record(suite=True), make_record("SDDropout()", suite=True, sets=("svhn",))]
    detectors = {name: d for name, d in runs[1].evaluation.ood[0].detectors.items() if name != "Mahalanobis"}
    runs[1] = changed(runs[1], detectors, "evaluation", "ood", 0, "detectors")
    captions = {sheet.caption: sheet.table for sheet in sheets(ood_section(measured(runs)))}
    assert len(captions["photographs: every metric (%)"].rows) == 6
    assert row(captions["svhn: AUROC (%)"], "SDDropout()")["Mahalanobis"] == "–"  # noqa: RUF001
    assert len(captions["svhn: every metric (%)"].rows) == 11


def test_the_mean_of_roc_curves_against_brute_force() -> None:
    random = np.random.default_rng(0)
    curves = []
    for points in (5, 40):
        fpr, tpr = (np.sort(np.concatenate([[0, 1], random.random(points)])) for _ in range(2))
        curves.append(RocCurve(tuple(fpr.tolist()), tuple(tpr.tolist())))
    fpr, tpr = mean_curve(curves)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    for k in (1, 17, 40, 66, 79):  # where the line fpr + tpr = k / 40 meets each curve, found by bisection
        met = []
        for curve in curves:
            steps = list(zip(curve.fpr, curve.tpr, strict=True))
            for (x0, y0), (x1, y1) in pairwise(steps):
                if x0 + y0 <= k / 40 <= x1 + y1:
                    share = (k / 40 - x0 - y0) / (x1 + y1 - x0 - y0)
                    met.append((x0 + share * (x1 - x0), y0 + share * (y1 - y0)))
                    break
        assert (fpr[k], tpr[k]) == pytest.approx(np.mean(met, axis=0))


def test_the_claim_about_dropout_masks_is_told_from_its_intervals(whole_suite: list[RunRecord]) -> None:
    section = masks_section(measured(whole_suite))
    assert section is not None
    assert section.findings == (
        "SDDropout() varied less under the masks than CrossEntropy() on the test images; LabelSmoothing() varied more.",
    )
    (sheet,) = sheets(section)
    shown = row(sheet.table, "CrossEntropy()")
    spread = [found for e in evaluations(whole_suite, "CrossEntropy()") if (found := e.ood[0].disagreement)]
    assert shown["Test images"].startswith(f"{statistics.fmean(s.in_distribution for s in spread):.4f} ±")
    assert shown["photographs / test"] == "1.40 ± 0.00"
    assert "20 masks" in section.notes[0]
    assert "p = 0.5, at temperature 1; mean over 5 draws" in section.notes[0]


def test_one_seed_says_nothing_of_the_claim(make_record: Make) -> None:
    runs = [make_record(suite=True), make_record("SDDropout()", suite=True, toughness=2.0)]
    section = masks_section(measured(runs))
    assert section is not None
    assert section.findings == ()
    for at in range(2):
        runs = [changed(run, None, "evaluation", "ood", at, "disagreement") for run in runs]
    assert masks_section(measured(runs)) is None


def test_temperature_scaling_alone_is_reported(make_record: Make) -> None:
    def scaled(name: str, ece: float, after: float, index: int = 0) -> Measured[Evaluation]:
        evaluation = changed(changed(make_record().evaluation, ece, "ece"), after, "scaled", "ece")
        return Measured(name, index, {0: changed(evaluation, (1.5, 1.7), "scaled", "temperatures")})

    baseline, better, worse = (
        scaled("CrossEntropy()", 0.15, 0.02),
        scaled("A()", 0.01, 0.01, 1),
        scaled("B()", 0.05, 0.01, 2),
    )
    (said,) = scaling_findings([baseline, better, worse])
    assert said.startswith("CrossEntropy() reaches an ECE of 0.020 with temperature scaling alone")
    assert said.endswith("that of B() (0.050) is above that.")
    assert scaling_findings([better, worse, baseline]) == (said,)  # cross-entropy's, wherever it stands
    assert scaling_findings([baseline, better])[0].endswith("no other method's ECE is above that.")
    assert scaling_findings([baseline]) == (
        "Temperature scaling alone, T = 1.60, would bring the ECE of 0.150 to 0.020.",
    )
    assert "would not lower the ECE of 0.010: it would be 0.010" in scaling_findings([better])[0]


def test_calibration_beside_the_reference(whole_suite: list[RunRecord]) -> None:
    sheet = calibration_sheet(measured(whole_suite))
    assert sheet is not None
    runs = evaluations(whole_suite, "CrossEntropy()")
    shown = row(sheet.table, "CrossEntropy()")
    scaled = [found for e in runs if (found := e.scaled)]
    temperatures = [statistics.fmean(one.temperatures) for one in scaled]
    assert shown["T"] == f"{statistics.fmean(temperatures):.2f} ± {statistics.stdev(temperatures):.2f}"
    assert shown["ECE, scaled"].startswith(f"{statistics.fmean(one.ece for one in scaled):.3f} ±")
    assert shown["Adaptive ECE"].startswith(f"{statistics.fmean(e.adaptive_ece or 0.0 for e in runs):.3f} ±")
    assert shown["Class-wise ECE"].startswith(f"{statistics.fmean(e.classwise_ece or 0.0 for e in runs):.4f} ±")


def test_errors_among_the_surest_images(make_record: Make) -> None:
    evaluation = make_record(n=1000).evaluation
    curve = evaluation.selective
    assert curve is not None
    risks = dict(zip(curve.coverage, curve.risk, strict=True))
    (sheet,) = sheets(selective_section([Measured("A()", 0, {0: evaluation})]))
    shown = row(sheet.table, "A()")
    assert shown["Error, surest 80 %"] == f"{100 * risks[0.8]:.1f}"
    assert shown["Error, all"] == f"{100 * risks[1.0]:.1f}"
    assert shown["AURC"] == f"{curve.aurc:.4f}"
    of_one_image = changed(evaluation, RiskCoverage((1.0,), (0.0,), 0.0, 1), "selective")
    (sheet,) = sheets(selective_section([Measured("A()", 0, {0: of_one_image})]))
    assert row(sheet.table, "A()")["Error, surest 50 %"] == "–"  # noqa: RUF001
