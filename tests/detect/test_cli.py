"""``selfdistill detect`` as a user meets it."""

import re
from pathlib import Path

import pytest

from selfdistill.cli import main
from selfdistill.detect.record import DetectRecord

SMALL = ["--image-size", "64", "--rois", "8", "--batch-size", "2", "--warmup-epochs", "0", "--threads", "1"]
SMALL += ["--workers", "0", "--lr", "0.001"]


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["detect", *map(str, words)])
    return (int(str(end.value.code)), *capsys.readouterr())


@pytest.mark.usefixtures("small_head")
def test_a_detector_on_a_run(
    coco: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--data", coco, "--backbone", trained, "--epochs", "7", "--eval-every", "4", "--images", "2", *SMALL]
    status, out, err = run(capsys, *words)
    assert status == 0, err
    folder = Path("detectors/tiny-sddropout-seed3-7-epochs-seed0")
    record = DetectRecord.load(folder / "result.json")
    assert (record.epochs, record.schedule) == (7, "0.5x (7 epochs)")
    assert f"Report: {folder}/detector.html" in out
    number = r"(\d+\.\d|\N{EN DASH})"
    headline = rf"mAP {number}, mAP@0\.5 {number} on n = 3 images of val2017; 0\.5x \(7 epochs\), last epoch, seed 0\."
    assert re.search(headline, out), out
    assert re.search(rf"mAP@0\.5 +{number} ", out)
    assert "tiny: 2 images of train2017" in err
    assert "epoch 7/7" in err
    page, text = (folder / "detector.html").read_text(), (folder / "detector.md").read_text()
    for whole in (page, text):
        for part in ("0.5x (7 epochs)", "the drops after 5 and 6 are ours", "SDDropout()", "resnet18", "3 images"):
            assert part in whole
    assert re.search(headline, page)
    assert "http" not in page.replace("http://www.w3.org", "")

    # The same command again shows the finished run.
    before = (folder / "result.json").stat().st_mtime_ns
    assert run(capsys, *words)[:2] == (0, out)
    assert (folder / "result.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--data nowhere --model resnet18", "nowhere/annotations/instances_train2017.json"),
        ("--data nowhere", "--backbone or --model"),
        ("--model resnet_18", "--model: resnet_18"),
        ("--backbone nothing", "nothing"),
        ("--model resnet18 --norm frozen", "--norm frozen"),
        ("--schedule 2x", "--schedule"),
        ("--milestones .9,.5", "--milestones"),
        ("--shedule 1x", "--schedule"),
        ("--recipe nothing.yaml", "nothing.yaml"),
        ("--backbone nothing --weights default", "--weights"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    words: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *words.split())
    assert (status, out) == (2, "")
    assert err.startswith("selfdistill: error: ")
    assert named in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_no_process(coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    status, _, err = run(capsys, "--data", coco, "--model", "resnet18", "--devices", 0, "--out", out, *SMALL)
    assert status == 2
    assert err.startswith("selfdistill: error: --devices must be ")
    assert not out.exists()


def test_a_recipe_of_yaml(coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("model: resnet18\nbackbne: x\n")
    status, _, err = run(capsys, "--recipe", file)
    assert (status, err) == (
        2,
        f"selfdistill: error: --recipe: {file}: unknown key 'backbne'; did you mean 'backbone'?\n",
    )
    file.write_text("model: resnet18\nlr: -1\n")
    status, _, err = run(capsys, "--recipe", file)
    assert (status, err) == (2, f"selfdistill: error: --recipe: {file}: lr must be above 0, not -1.0\n")
