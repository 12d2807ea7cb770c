import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from selfdistill.evaluation.images import predict
from selfdistill.evaluation.suite import score
from selfdistill.records import RunRecord
from selfdistill.records.evaluation import Measured, SuiteConfig
from selfdistill.report import digest, write_evaluation_report, write_report
from tests.changing import changed

Make = Callable[..., RunRecord]


class Reader(HTMLParser):
    """Collects the text, the tags' addresses and the identifiers; complains about tags left open."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.links, self.ids, self.tags, self.open = "", [], [], set(), []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "action", "data"):
                self.links.append(value)
            if name == "id":
                self.ids.append(value)
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text())
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def page(comparison: list[RunRecord], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(comparison, tmp_path_factory.mktemp("four"), title="Four methods", preface="A preface.")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "figures").iterdir())


def test_the_page_stands_alone_and_is_well_formed(page: Path) -> None:
    reader = read(page)
    assert page.name == "report.html"
    assert "script" not in reader.tags
    assert all(link.startswith(("#", "data:")) for link in reader.links)
    assert not re.search(r"url\((?!#)|@import", page.read_text())
    assert len(reader.ids) == len(set(reader.ids))
    anchors = {link[1:] for link in reader.links if link.startswith("#")}
    anchors |= set(re.findall(r"url\(#([^)]*)\)", page.read_text()))
    assert anchors <= set(reader.ids)


def test_contents_lead_to_every_section(whole_page: Path) -> None:
    reader, text = read(whole_page), whole_page.read_text()
    headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", text)
    assert headings[0] == "Verdict"
    contents = re.findall(r'<li><a href="#([^"]*)">([^<]*)</a></li>', text)
    assert [title for _, title in contents] == headings[1:]
    assert {anchor for anchor, _ in contents} <= set(reader.ids)
    # A browser opens what is folded only if the anchor is in it, and not on it.
    assert all(re.search(rf'</summary>\s*<div id="{anchor}">', text) for anchor, _ in contents[2:])


def test_every_section_is_there(page: Path) -> None:
    text = read(page).text
    for words in (
        "A preface.",
        "5,000 training images and 1,500 test images (test folder) of 10 classes",
        "312,474 parameters, trained for 30 epochs from scratch",
        "4 methods, 3 seeds (0, 1, 2): 12 runs",
        "Use SDDropout(weight=0.1)",
        "3 seeds, 1,500 test images, 30 epochs, 1,200 optimiser steps. Right on the training images: CrossEntropy() 99",
        "Differences to CrossEntropy()",
        "95 % interval",
        "over-confident by",
        "under-confident by",
        "Best-epoch top-1 (%)",
        "chosen on the test images, so optimistic",
        "batch_size: 128",
        "2.15.0",
        "10 equal-width bins",
        "last epoch (30), never of the best one",
    ):
        assert words in text, words


def test_markdown_says_the_same_with_its_figures_beside_it(page: Path) -> None:
    html = read(page).text
    text = (page.parent / "report.md").read_text()
    figures = re.findall(r"!\[[^]]*\]\((figures/[^)]*)\)", text)
    assert sorted(figures) == [
        f"figures/{n}.svg" for n in ("curves", "differences", "reliability", "risk-coverage", "seeds")
    ]
    for name in figures:
        ElementTree.parse(page.parent / name)
        assert (page.parent / name).stat().st_size < 200_000
    numbers = re.findall(r"\d+\.\d+ ± \d+\.\d+", text)
    assert len(numbers) > 30
    flat = " ".join(html.split())
    assert all(number in flat for number in numbers)
    assert "\n\n\n" not in text


@pytest.fixture(scope="module")
def whole_page(whole_suite: list[RunRecord], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(whole_suite, tmp_path_factory.mktemp("whole"), title="Everything")


MEASURED = (
    "Temperature scaling alone",
    "Selective prediction",
    "Robustness to attack",
    "Accuracy (%) under PGD-20, 1,000 of them",
    "Robustness to corruption",
    "Out-of-distribution detection",
    "photographs: every metric (%)",
    "Agreement under dropout masks",
    "Not measured: Mahalanobis of one class: no training image",
)
SECTION_FIGURES = (
    "attacks", "corruption-each", "corruptions", "ood-roc-0", "ood-roc-1", "ood-scores-0", "ood-scores-1",
    "reliability", "risk-coverage",
)  # fmt: skip


def test_everything_that_was_measured_is_on_the_page(whole_page: Path) -> None:
    text = read(whole_page).text
    for words in (*MEASURED[1:], "Under attack (PGD-20 at 2/255) ", "mCA (points)"):
        assert words in text, words
    assert names(whole_page.parent) == sorted(
        f"{name}.svg" for name in (*SECTION_FIGURES, "curves", "differences", "seeds")
    )


def test_markdown_has_the_same_numbers_of_every_measure(whole_page: Path) -> None:
    text = (whole_page.parent / "report.md").read_text()
    assert "\n\n\n" not in text
    flat = " ".join(read(whole_page).text.split())
    numbers = re.findall(r"\d+\.\d+ ± \d+\.\d+", text)
    assert len(numbers) > 300
    assert all(number in flat for number in numbers)
    figures = re.findall(r"!\[[^]]*\]\(figures/([^)]*)\)", text)
    assert sorted(figures) == names(whole_page.parent)
    for name in figures:
        ElementTree.parse(whole_page.parent / "figures" / name)
        assert (whole_page.parent / "figures" / name).stat().st_size < 250_000


def test_the_whole_page_stands_alone(whole_page: Path) -> None:
    reader = read(whole_page)
    assert all(link.startswith(("#", "data:")) for link in reader.links)
    assert len(reader.ids) == len(set(reader.ids))


def test_the_same_records_give_the_same_bytes(whole_suite: list[RunRecord], whole_page: Path, tmp_path: Path) -> None:
    # More than a second after the first: a time of day in a file would differ.
    again = write_report(whole_suite, tmp_path, title="Everything")
    assert again.read_bytes() == whole_page.read_bytes()
    for name in ("report.md", *(f"figures/{name}" for name in names(tmp_path))):
        assert (tmp_path / name).read_bytes() == (whole_page.parent / name).read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_figures_of_an_earlier_report_do_not_stay(make_record: Make, tmp_path: Path) -> None:
    write_report([make_record(suite=True), make_record("SDDropout()", suite=True)], tmp_path, title="All")
    assert {"ood-roc-1.svg", "differences.svg"} <= set(names(tmp_path))
    (tmp_path / "figures" / "mine.svg").write_text("<svg/>")
    write_report([make_record()], tmp_path, title="One")
    assert names(tmp_path) == ["curves.svg", "mine.svg", "reliability.svg", "risk-coverage.svg"]


@pytest.mark.usefixtures("undrawn")
def test_one_seed_of_everything(make_record: Make, tmp_path: Path) -> None:
    runs = [make_record(suite=True), make_record("SDDropout()", suite=True, toughness=1.5)]
    text = read(write_report(runs, tmp_path, title="Two")).text
    assert "Too few seeds to decide" in text
    assert "one pair of runs" in text
    assert "Mean over seeds" not in text.rpartition("Training curves")[0]


def test_sets_that_users_name_are_escaped(make_record: Make, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>&$x_1$ a/b"
    runs = [make_record(method, suite=True, sets=(evil,)) for method in ("CrossEntropy()", "SDDropout()")]
    reader = read(write_report(runs, tmp_path, title="T"))
    assert "img" not in reader.tags
    assert f"{evil}: AUROC (%)" in reader.text
    assert "<img" not in (tmp_path / "report.md").read_text()
    for path in (tmp_path / "figures").iterdir():
        ElementTree.parse(path)


@pytest.mark.usefixtures("undrawn")
def test_what_was_measured_and_where_is_said(make_record: Make, tmp_path: Path) -> None:
    runs = [
        changed(
            make_record(seed=seed, suite=True),
            Measured(
                seconds=12.3,
                device="cpu (other)",
                threads=7,
                versions={"python": "3.12.9", "torch": f"2.1{seed}.0"},
                date=f"2026-11-2{seed}T00:00:00+00:00",
                commit=None,
                config=SuiteConfig(measures=("robustness", "shift"), max_images=1234),
            ),
            "evaluation",
            "measured",
        )
        for seed in range(2)
    ]
    assert "taken on cpu (other), 12 s a run" in read(write_report(runs, tmp_path, title="One")).text
    rows = dict(re.findall(r"^\| (measured: [^|]*) \| ([^|]*) \|$", (tmp_path / "report.md").read_text(), re.MULTILINE))
    assert rows == {
        "measured: what": "robustness, shift",
        "measured: PGD and own corruptions": "at most 1,234 images",
        "measured: with": "python 3.12.9, torch 2.10.0, python 3.12.9, torch 2.11.0",
        "measured: device": "cpu (other)",
        "measured: CPU threads": "7",
        "measured: commit": "–",  # noqa: RUF001
        "measured: last": "2026-11-21T00:00:00+00:00",
    }


@pytest.mark.usefixtures("undrawn")
def test_what_was_not_measured_alike_is_said(make_record: Make, tmp_path: Path) -> None:
    runs = [make_record(method, suite=True) for method in ("CrossEntropy()", "SDDropout()")]
    words = "No difference is given in"
    assert words not in read(write_report(runs, tmp_path, title="T")).text
    runs[0] = changed(runs[0], 300, "evaluation", "robustness", "pgd_n")
    runs[1] = changed(runs[1], 300, "evaluation", "ood", 0, "n")
    text = read(write_report(runs, tmp_path, title="T")).text
    assert f"{words} PGD-20 at 2/255, AUROC, ODIN: the runs were measured on other images" in text
    assert "mCA (points)" in text
    assert "PGD-20 at 2/255 (points)" not in text


def test_one_network_that_is_no_run_has_a_page(make_record: Make, tmp_path: Path) -> None:
    evaluation = make_record(suite=True).evaluation
    facts = [("network", "timm:<b>"), ("device", "cpu")]
    page = write_evaluation_report("timm:<b>", evaluation, tmp_path, title="<i>", preface="A preface.", facts=facts)
    assert page == tmp_path / "evaluation.html"
    assert names(tmp_path) == sorted(f"{name}.svg" for name in SECTION_FIGURES)
    reader = read(page)
    assert "i" not in reader.tags
    markdown = (tmp_path / "evaluation.md").read_text()
    for words in (*MEASURED, "A preface.", "timm:<b> is right on", "AUROC, ODIN fixed, photographs (%)"):
        assert words in reader.text, words
        assert words.replace("<", "&lt;").replace(">", "&gt;") in markdown, words
    assert "Seeds" not in reader.text
    assert "±" not in reader.text.rpartition("How to read this")[0]
    assert "\n\n\n" not in markdown
    (tmp_path / "again").mkdir()
    again = write_evaluation_report(
        "timm:<b>", evaluation, tmp_path / "again", title="<i>", preface="A preface.", facts=facts
    )
    assert again.read_bytes() == page.read_bytes()


def test_one_network_of_which_little_was_measured(make_record: Make, tmp_path: Path) -> None:
    older = make_record().evaluation
    for name in ("adaptive_ece", "classwise_ece", "scaled", "selective"):
        older = changed(older, None, name)
    page = write_evaluation_report("net", older, tmp_path, title="T")
    assert names(tmp_path) == ["reliability.svg"]
    assert "Network, images and versions" not in read(page).text


def test_the_terminal_has_a_line_for_each_number(make_record: Make) -> None:
    evaluation = make_record(suite=True).evaluation
    rows = {row[0]: row[1:] for row in digest(evaluation).rows}
    attacks, shift, odin = evaluation.robustness, evaluation.shift, evaluation.ood[1].detectors["ODIN fixed"].metrics
    assert attacks is not None
    assert shift is not None
    assert evaluation.selective is not None
    assert rows["PGD-20 at 2/255 (%)"] == (f"{100 * attacks.pgd[2]:.1f}", "accuracy; 1,000 images, evenly spaced")
    assert rows["FGSM at 2/255 (%)"][0] == f"{100 * attacks.fgsm[2]:.1f}"
    assert rows["mCA (%)"] == (
        f"{100 * shift.mca:.2f}", "1,000 images, 15 x 5 times; own corruptions, not for Table 6"
    )  # fmt: skip
    assert rows["AUROC, ODIN fixed, svhn (%)"][0] == f"{100 * odin.auroc:.1f}"
    assert rows["FPR, ODIN fixed, svhn (%)"][0] == f"{100 * odin.fpr_at_95_tpr:.1f}"
    assert rows["Not measured"][1] == "Mahalanobis of one class: no training image"
    assert rows["AURC"][0] == f"{evaluation.selective.aurc:.4f}"


@pytest.mark.usefixtures("undrawn")
def test_one_run_has_no_differences(make_record: Make, tmp_path: Path) -> None:
    text = read(write_report([make_record()], tmp_path, title="One")).text
    assert "Differences" not in text
    assert "one seed, so no spread can be given" in text
    assert names(tmp_path) == ["curves.svg", "reliability.svg", "risk-coverage.svg"]
    assert "differences.svg" not in (tmp_path / "report.md").read_text()


def test_what_users_name_is_escaped(make_record: Make, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>&\"'$x_1$"
    records = [
        msgspec.structs.replace(make_record(method, data_name=evil), device=evil)
        for method in ("CrossEntropy()", f"Sum({evil})")
    ]
    page = write_report(records, tmp_path, title=evil, preface=evil)
    reader = read(page)
    assert "img" not in reader.tags
    assert reader.text.count(evil) >= 6
    markdown = (tmp_path / "report.md").read_text()
    outside_code = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    assert "<img" not in outside_code
    for path in (tmp_path / "figures").iterdir():
        ElementTree.parse(path)


@pytest.mark.usefixtures("undrawn")
def test_a_recipe_cannot_end_its_code_block(make_record: Make, tmp_path: Path) -> None:
    write_report([make_record(recipe={"head": "```\n# pwned"})], tmp_path, title="T")
    assert (tmp_path / "report.md").read_text().count("```") == 2


def test_many_methods_with_long_names(make_record: Make, tmp_path: Path) -> None:
    names = [f"SDDropout(p=0.5, weight=0.{i}) + LabelSmoothing(eps=0.{i})" for i in range(9)]
    records = [make_record(name, seed, n=200, epochs=3) for name in names for seed in range(2)]
    assert names[-1] in read(write_report(records, tmp_path, title="Many")).text


def test_two_classes_missing_values_and_one_epoch(make_record: Make, tmp_path: Path) -> None:
    records = [
        msgspec.structs.replace(make_record(m, s, classes=2, epochs=1), best=None)
        for m in ("CrossEntropy()", "SDDropout()")
        for s in range(2)
    ]
    for name in ("test_top1", "ce", "loss"):
        records = [changed(record, None, "rows", 0, name) for record in records]
    text = read(write_report(records, tmp_path, title="Two")).text
    assert "Top-5" not in text
    assert "Best-epoch top-1 (%)" not in text


def test_unequal_runs_are_refused_and_nothing_is_written(make_record: Make, tmp_path: Path) -> None:
    records = [make_record(), make_record("SDDropout()", epochs=10)]
    with pytest.raises(ValueError, match=r"recipe\.epochs: 30 and 10"):
        write_report(records, tmp_path / "out", title="T")
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_folder(make_record: Make, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OSError, match="out"):
        write_report([make_record()], tmp_path / "out", title="T")
    assert (tmp_path / "out").read_text() == "mine"


def test_pyplot_is_never_imported() -> None:
    code = "import sys, selfdistill.report; sys.exit('matplotlib.pyplot' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.usefixtures("undrawn")
def test_real_digits_trained_for_a_few_steps(make_record: Make, tmp_path: Path) -> None:
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    records = []
    for method, steps in (("CrossEntropy()", 80), ("LabelSmoothing()", 4)):
        for seed in range(3):
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
            optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
            for _ in range(steps):
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(x[:1200]), y[:1200]).backward()
                optimiser.step()
            evaluation = score(*predict(model, [(x[1200:], y[1200:])]), train_n=1200, train_top1=0.99)
            base = make_record(method, seed, epochs=3)
            records.append(msgspec.structs.replace(base, evaluation=evaluation))
    assert records[0].evaluation.top1 > 0.85
    assert records[3].evaluation.gap < -0.1  # four steps: hardly trained, far from confident
    text = read(write_report(records, tmp_path, title="Digits")).text
    assert "Keep cross-entropy" in text
    assert f"{100 * statistics.fmean(r.evaluation.top1 for r in records[:3]):.2f}" in text
