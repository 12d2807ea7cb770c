"""Confusions, classes, pictures and ensembles, against scikit-learn and literal loops."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from selfdistill.evaluation.calibration import class_reliability
from selfdistill.evaluation.predictions import images_to_show
from selfdistill.evaluation.promises import check_promises
from selfdistill.evaluation.suite import score
from selfdistill.records import VALIDATION, Predictions, RunRecord
from selfdistill.report import write_report
from selfdistill.report.measured import Measured
from selfdistill.report.measures.classes import classes_section, confusion
from selfdistill.report.pages import Gallery, Sheet
from selfdistill.report.predictions import NOT_KEPT, ensembles
from tests.changing import changed

Make = Callable[..., RunRecord]

N = 200
CLASSES = ("<img src=x onerror=alert(1)>", "b & c", "d|e", "never")


def predictions(seed: int, strength: float = 1.0) -> Predictions:
    random = np.random.default_rng(seed)
    labels = np.random.default_rng(99).integers(0, 3, N)  # no image of the last class
    logits = random.normal(0, 1, (N, 4)) + strength * np.eye(4)[labels]
    without = Predictions(logits.astype(np.float32), labels, CLASSES)
    content = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(content, "PNG")
    shown = images_to_show(without)
    return Predictions(without.logits, labels, CLASSES, shown, (content.getvalue(),) * len(shown))


METHODS = [
    Measured("CrossEntropy()", 0, {seed: predictions(seed) for seed in range(3)}),
    Measured("A()", 1, {seed: predictions(seed + 10, 2.0) for seed in range(3)}),
]


def tables() -> dict[str, Sheet]:
    section = classes_section(METHODS, "A()")
    assert section is not None
    return {part.caption: part for part in section.parts if isinstance(part, Sheet)}


def test_confusions_are_those_of_scikit_learn() -> None:
    of_seeds = METHODS[1].values
    labels, predicted = (np.concatenate(of) for of in zip(*((p.labels, p.predicted) for p in of_seeds), strict=True))
    wanted = confusion_matrix(labels, predicted, labels=range(4))
    assert np.array_equal(confusion(METHODS[1]), wanted)
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predicted, labels=range(4), zero_division=0)
    rows = {row[0]: row for row in tables()["By class, the hardest first"].table.rows}
    assert set(rows) == set(CLASSES)
    theirs = confusion(METHODS[0])
    for c in range(3):
        wanted = [recall[c], theirs[c, c] / theirs[c].sum(), precision[c], f1[c]]
        assert rows[CLASSES[c]][2:-1] == tuple(f"{100 * value:.1f}" for value in wanted)
        errors = [
            class_reliability(one.probabilities, one.labels)[c].expected_calibration_error for one in METHODS[1].values
        ]
        assert rows[CLASSES[c]][-1] == f"{np.mean(errors):.3f}"
    assert rows["never"][1] == "0"
    assert rows["never"][2] == "–"  # noqa: RUF001


def test_the_most_confused_pair_comes_first() -> None:
    counts = confusion(METHODS[1])
    wrong = {(t, p): counts[t, p] for t in range(4) for p in range(4) if t != p}
    (true, other), most = max(wrong.items(), key=lambda item: item[1])
    first = tables()["Most confused pairs"].table.rows[0]
    assert first[:3] == (CLASSES[true], CLASSES[other], str(most))


def test_an_ensemble_is_the_mean_of_the_posteriors() -> None:
    found = {one.method: one for one in ensembles([*METHODS, Measured("B()", 2, {0: predictions(0)})])}
    assert list(found) == ["CrossEntropy()", "A()"]
    networks = [torch.from_numpy(p.logits).double().softmax(dim=1) for p in METHODS[1].values]
    mean = (networks[0] + networks[1] + networks[2]) / 3
    labels = torch.from_numpy(METHODS[1].values[0].labels)
    evaluation = found["A()"].evaluation
    assert evaluation.top1 == pytest.approx(float((mean.argmax(dim=1) == labels).double().mean()))
    assert evaluation.nll == pytest.approx(float(-mean[range(N), labels].log().mean()))
    assert evaluation.confidence == pytest.approx(float(mean.max(dim=1).values.mean()))
    assert evaluation.nll < np.mean([score(torch.from_numpy(p.logits), labels).nll for p in METHODS[1].values])


def test_pictures_that_are_gone_or_no_pictures_are_counted() -> None:
    whole = predictions(0)
    content = (b"", b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\n" + b"x" * 30_000, *whole.thumbnails[3:])
    section = classes_section(
        [Measured("A()", 0, {0: Predictions(whole.logits, whole.labels, CLASSES, whole.shown, content)})], "A()"
    )
    assert section is not None
    galleries = [part for part in section.parts if isinstance(part, Gallery)]
    assert [len(one.thumbnails) for one in galleries] == [12, 12]
    assert [one.missing for one in galleries] == [3, 0]


def test_many_classes_have_no_matrix_and_a_bounded_table() -> None:
    random = np.random.default_rng(0)
    kept = Predictions(
        random.normal(size=(300, 60)).astype(np.float32), random.integers(0, 60, 300), tuple(map(str, range(60)))
    )
    section = classes_section([Measured("A()", 0, {0: kept})], "A()")
    assert section is not None
    assert [figure.name for figure in section.figures] == ["class-reliability"]
    assert [len(part.table.rows) for part in section.parts if isinstance(part, Sheet)] == [6, 40]


@pytest.fixture
def runs(make_record: Make, tmp_path: Path) -> list[RunRecord]:
    """Two methods with three seeds each, in their folders."""
    found = []
    for method in METHODS:
        for seed, kept in method.by_seed.items():
            run = changed(
                make_record(method.name, seed, classes=4, epochs=1),
                score(torch.from_numpy(kept.logits), torch.from_numpy(kept.labels)),
                "evaluation",
            )
            folder = tmp_path / "runs" / run.name
            folder.mkdir(parents=True)
            run.save(folder / "result.json")
            kept.save(folder)
            found.append(run)
    return found


def test_pages_show_classes_pictures_and_ensembles(runs: list[RunRecord], tmp_path: Path) -> None:
    page = write_report(runs, tmp_path / "out", title="T", folders=[tmp_path / "runs"])
    text, markdown = page.read_text(), page.with_suffix(".md").read_text()
    pictures = re.findall(r"<img [^>]*>", text)
    assert len(pictures) == 24
    assert all(tag.startswith('<img src="data:image/png;base64,') for tag in pictures)
    assert "onerror=alert(1)>" not in text + markdown
    assert "b &amp; c" in text
    (row,) = re.findall(r"^\| ensemble, A\(\) \| (\S+) .* \| 3 \|$", markdown, re.MULTILINE)
    record = json.loads((tmp_path / "out" / "ensembles.json").read_text())
    assert record["A()"]["seeds"] == [0, 1, 2]
    assert row == f"{100 * record['A()']['evaluation']['top1']:.2f}"
    for figure in ("confusion", "class-reliability"):
        assert f"figures/{figure}.svg" in markdown
        assert (tmp_path / "out" / "figures" / f"{figure}.svg").is_file()
    assert NOT_KEPT not in text
    for kept in (tmp_path / "runs").glob("*/predictions.npz"):
        kept.unlink()
    write_report(runs, tmp_path / "out", title="T", folders=[tmp_path / "runs"])
    assert NOT_KEPT in page.read_text()
    assert not (tmp_path / "out" / "ensembles.json").exists()
    assert "<img" not in page.read_text()


@pytest.mark.usefixtures("undrawn")
def test_pages_show_what_validation_images_promised(runs: list[RunRecord], tmp_path: Path) -> None:
    title = "Abstention and prediction sets"
    page = write_report(runs, tmp_path / "out", title="T", folders=[tmp_path / "runs"])
    assert title not in page.read_text()
    found = []
    for seed in range(3):
        outputs = predictions(50 + seed, 2.0)
        outputs.save(tmp_path / "runs" / f"A()-{seed}", VALIDATION)
        found.append(check_promises(outputs, METHODS[1].values[seed]))
    write_report(runs, tmp_path / "out", title="T", folders=[tmp_path / "runs"])
    section = page.with_suffix(".md").read_text().partition(f"## {title}")[2].partition("\n## ")[0]
    assert f"{N} validation images" in section
    (row,) = re.findall(r"^\| A\(\) \| (.*) \| 3 \|$", section, re.MULTILINE)
    answered, error, covered, size, _ = [cell.split(" ± ")[0] for cell in row.split(" | ")]
    assert (answered, error) == ("–", "–")  # noqa: RUF001
    assert covered == f"{100 * np.mean([one.covered for one in found]):.1f}"
    assert size == f"{np.mean([one.size for one in found]):.2f}"
    assert "for 3 of 3 networks the validation images allow no such promise" in section
    assert title in page.read_text()
