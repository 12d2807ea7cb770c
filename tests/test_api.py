"""`selfdistill.train`, `compare`, `evaluate`, `predict`: the numbers of the command line, for any module and images."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import selfdistill
from selfdistill.api.images import collect_images
from selfdistill.cli import main
from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.errors import ArgumentError
from selfdistill.timing.budget import measure_step_seconds

NET = """
from torch import nn
def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
"""
SETTINGS = {"epochs": 1, "batch_size": 20, "threads": 1}


def small() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> None:
    monkeypatch.setattr(measure_step_seconds, "__defaults__", (2,))  # few steps are timed
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "nets_of_mine", raising=False)


@pytest.fixture
def images() -> Tensor:
    """Grey images of 16 pixels, the brighter the higher the class."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(60, (60, 1, 16, 16), generator=generator)
    return (noise + 80 * (torch.arange(60) % 3).view(-1, 1, 1, 1)).to(torch.uint8)


LABELS = torch.arange(60) % 3


class Pictures(Dataset[tuple[Image.Image, int]]):
    classes = ("dark", "grey", "light")

    def __init__(self, images: Tensor):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, at: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[at, 0].numpy()), int(LABELS[at])


def command(*words: object) -> None:
    with pytest.raises(SystemExit) as end:
        main(list(map(str, words)))
    assert end.value.code == 0


@pytest.mark.parametrize(("given", "model"), [("arrays", "name"), ("tensors", "function"), ("dataset", "function")])
def test_train_gives_the_weights_of_the_command_line(images: Tensor, given: str, model: str, tmp_path: Path) -> None:
    np.savez("set.npz", images=images[:, 0].numpy(), labels=LABELS.numpy())
    Path("nets_of_mine.py").write_text(NET)
    words = ["--model", "nets_of_mine:small"] if model == "function" else ["--model", "resnet10_cifar", "--width", 4]
    command("train", "--data", "set.npz", *words, "--epochs", 1, "--batch-size", 20, "--threads", 1, "--out", "there")
    data: Any = {
        "arrays": (images.permute(0, 2, 3, 1).numpy(), LABELS.numpy()),
        "tensors": (images, LABELS),
        "dataset": TensorDataset(images.float() / 255, LABELS),
    }[given]
    settings = SETTINGS if model == "function" else SETTINGS | {"width": 4}
    run = selfdistill.train(small if model == "function" else "resnet10_cifar", data, out="here", **settings)
    there, here = selfdistill.load("there").state_dict(), run.model.state_dict()
    assert there.keys() == here.keys()
    assert all(torch.equal(there[name], here[name]) for name in there)


def test_a_finished_run_is_returned_and_bound_to_its_images(images: Tensor) -> None:
    run = selfdistill.train(small, (images, LABELS), **SETTINGS)
    assert run.folder == Path("runs/arrays-sddropout-seed0")
    assert selfdistill.train(small, (images, LABELS), **SETTINGS).record == run.record
    with pytest.raises(ValueError, match="other data"):
        selfdistill.train(small, (255 - images, LABELS), **SETTINGS)
    with pytest.raises(ValueError, match="another recipe"):
        selfdistill.train(lambda: nn.Sequential(small(), nn.Identity()), (images, LABELS), **SETTINGS)


def test_parts_and_class_names_are_those_given(images: Tensor) -> None:
    part = Pictures(images)
    run = selfdistill.train(small, part, test=part, val=part, keep="best", **SETTINGS)
    data = run.record.data
    assert (data.name, data.train_n, data.test_n, data.val_n) == ("Pictures", 60, 60, 60)
    assert run.load().classes == Pictures.classes
    some = selfdistill.train(small, part, per_class=5, test_per_class=2, out="some", **SETTINGS)
    assert (some.record.data.train_n, some.record.data.test_n) == (15, 6)


def test_a_lambda_is_compared_and_found_through_its_results(images: Tensor) -> None:
    methods = [selfdistill.CrossEntropy(), "LabelSmoothing()"]
    found = selfdistill.compare(lambda: small(), (images, LABELS), methods, seeds=1, quick=True, **SETTINGS)
    assert [record.method for record in found.records] == ["CrossEntropy()", "LabelSmoothing()"]
    assert found.report.is_file()
    for text in (repr(found), found._repr_html_()):
        assert all(name in text for name in ("CrossEntropy()", "LabelSmoothing()", str(found.report)))
    run = found.folder / found.records[0].name
    with pytest.raises(ValueError, match="cannot find"):
        selfdistill.predict(run, images)
    assert isinstance(selfdistill.load(run, small), nn.Module)
    trained = selfdistill.train(lambda: small(), (images, LABELS), out="one", **SETTINGS)
    assert selfdistill.predict(trained, images).probabilities.shape == (60, 3)


def test_images_in_memory_are_searched_on_and_the_best_network_saved(images: Tensor) -> None:
    methods = ["CrossEntropy()", selfdistill.SDDropout(p=0.25)]
    settings = SETTINGS | {"trials": 2, "seeds": 1}
    found = selfdistill.tune(small, (images, LABELS), methods, out="tuned", **settings)
    assert found.search is not None
    assert {trial.of for trial in found.search.trials} == {"CrossEntropy()", "SDDropout(p=0.25)"}
    assert all("p=0.25" in trial.method for trial in found.search.trials if trial.of != "CrossEntropy()")
    data = found.records[0].data
    assert data.train_n + data.test_n == 60, "the validation images are trained on at last"
    assert 0 < found.search.val_n < data.train_n
    assert found.network == Path("tuned/best")
    np.testing.assert_array_equal(
        selfdistill.predict(found, images).probabilities, selfdistill.predict(found.network, images).probabilities
    )
    again = selfdistill.tune(small, (images, LABELS), methods, out="tuned", **settings)
    assert again.records == found.records


def test_failed_runs_are_named_beside_the_others(images: Tensor) -> None:
    methods = ["CrossEntropy()", "SDDropout(weight=1e38)"]
    found = selfdistill.compare(small, (images, LABELS), methods, seeds=1, quick=True, **SETTINGS)
    assert [record.method for record in found.records] == methods[:1]
    assert list(found.failed) == ["sddropout-weight-1e-38-seed0"]
    assert "sddropout-weight-1e-38-seed0 failed: " in repr(found)


def test_a_module_is_evaluated_and_stays_as_it_is(images: Tensor) -> None:
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = selfdistill.evaluate(model, Pictures(images), mean=[0.5], std=[0.25], quick=True, out="page")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    logits = model.eval()((images.float() / 255 - 0.5) / 0.25).detach()
    by_hand = selfdistill.evaluate_logits(logits.numpy(), LABELS)
    assert found.evaluation.top1 == by_hand.evaluation.top1 == (logits.argmax(1) == LABELS).double().mean()
    assert found.evaluation.nll == pytest.approx(float(nn.functional.cross_entropy(logits, LABELS)), rel=1e-5)
    assert found.report == Path("page/evaluation.html")
    predicted = selfdistill.predict(model, images, mean=[0.5], std=[0.25], classes=Pictures.classes)
    np.testing.assert_allclose(predicted.probabilities, logits.softmax(1).numpy(), atol=1e-6)
    assert predicted.labels == [Pictures.classes[at] for at in logits.argmax(1)]
    assert (
        "<td>dark</td>"
        in selfdistill.predict(model, images, mean=[0.5], std=[0.25], classes=["dark"] * 3)._repr_html_()
    )


def test_a_run_is_evaluated_on_its_images_and_on_others(images: Tensor) -> None:
    np.savez("set.npz", images=images[:, 0].numpy(), labels=LABELS.numpy())
    run = selfdistill.train(small, "set.npz", **SETTINGS)
    own = selfdistill.evaluate(run, max_images=5, ood=[]).evaluation
    assert own.top1 == run.evaluation.top1
    assert own.robustness is not None
    assert selfdistill.evaluate(run.folder, (images[:6], LABELS[:6]), quick=True).evaluation.n == 6
    Image.fromarray(images[0, 0].numpy()).save("a.png")
    by_file = selfdistill.predict(run, "a.png")
    assert by_file.paths == (Path("a.png"),)
    for same in (images[:1], TensorDataset(images[:1], LABELS[:1])):
        np.testing.assert_allclose(selfdistill.predict(run, same).probabilities, by_file.probabilities)


def test_calibration_of_logits_by_hand() -> None:
    logits = np.log([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    found = selfdistill.evaluate_logits(logits, [0, 1, 0, 1], bins=1).evaluation
    assert found.top1 == 0.75
    assert found.gap == pytest.approx(0)  # (.9 + .8 + .6 + .7) / 4 = .75
    assert found.selective is not None
    assert found.nll == pytest.approx(-np.log([0.9, 0.2, 0.6, 0.7]).mean())


WRONG: list[tuple[str, Callable[[Tensor], object]]] = [
    ("model", lambda x: selfdistill.train(small(), (x, LABELS))),  # type: ignore[arg-type]
    ("model", lambda x: selfdistill.train(small, (x, LABELS % 2))),
    ("model", lambda x: selfdistill.compare(small, (x.repeat(1, 2, 1, 1), LABELS), epochs=1)),
    ("epoch", lambda x: selfdistill.train(small, (x, LABELS), epoch=3)),
    ("test", lambda x: selfdistill.train(small, "digits", test=(x, LABELS))),
    ("test", lambda x: selfdistill.train(small, (x, LABELS), test=(x, LABELS + 1))),
    ("data", lambda x: selfdistill.train(small, (x, LABELS[1:]))),
    ("data", lambda x: selfdistill.train(small, DataLoader(TensorDataset(x, LABELS)))),  # type: ignore[arg-type]
    ("data", lambda x: selfdistill.train(small, (x.float() - 3, LABELS))),
    ("data", lambda x: selfdistill.train(small, TensorDataset(x))),
    ("data", lambda x: selfdistill.evaluate(small(), mean=[0], std=[1])),
    ("jobs", lambda x: selfdistill.compare(small, (x, LABELS), jobs=2, epochs=1)),
    ("jobs", lambda x: selfdistill.compare(lambda: small(), "digits", jobs=2, epochs=1)),
    ("budget", lambda x: selfdistill.compare(small, (x, LABELS), epochs=1, budget="1h")),
    ("method", lambda x: selfdistill.compare(small, (x, LABELS), epochs=1, method="SDDropout()")),
    ("method", lambda x: selfdistill.tune(small, (x, LABELS), epochs=1, method="SDDropout()")),
    ("budget", lambda x: selfdistill.tune(small, (x, LABELS), epochs=1, trials=1, budget="1h")),
    ("methods", lambda x: selfdistill.tune(small, (x, LABELS), ["SDDropout()"], epochs=1, trials=1)),
    ("jobs", lambda x: selfdistill.tune(small, (x, LABELS), jobs=2, epochs=1, trials=1)),
    ("mean", lambda x: selfdistill.evaluate(small(), (x, LABELS))),
    ("std", lambda x: selfdistill.predict(small(), x, mean=[0], std=[1, 1])),
    ("mean", lambda x: selfdistill.predict("run", x, mean=[0])),
    ("image_size", lambda x: selfdistill.predict(small(), "a.png", mean=[0], std=[1])),
]


@pytest.mark.parametrize(("argument", "call"), WRONG)
def test_a_wrong_argument_is_named(
    argument: str, call: Callable[[Tensor], object], images: Tensor, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError) as raised:
        call(images)
    assert raised.value.argument == argument
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.rglob("result.json"))


def test_images_of_several_sizes_need_one() -> None:
    class Sizes(Pictures):
        def __getitem__(self, at: int) -> tuple[Image.Image, int]:
            return Image.new("RGB", (10 + at, 12)), at % 3

    data = Sizes(torch.zeros(9, 1))
    with pytest.raises(ArgumentError) as raised:
        collect_images(data)
    assert raised.value.argument == "image_size"
    found: ImageData = collect_images(data, image_size=16)
    assert (found.image_size, found.channels, len(found.train) + len(found.test)) == (16, 3, 9)


def test_config_fields_are_those_of_train_config() -> None:
    assert TrainConfig(data="x (in Python)").data_is_in_python
    assert not TrainConfig(data="x").data_is_in_python
