"""Fine-tuning: where it starts, which layers move how much, and what stays as it was pretrained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.errors import ArgumentError
from selfdistill.models import build
from selfdistill.models.pretrained import pretrained
from selfdistill.training import fine_tuning, load, train
from selfdistill.training.classification import assemble
from selfdistill.training.fine_tuning import fit_linear_probe
from selfdistill.training.meters import Meters
from selfdistill.training.run import as_pretrained
from selfdistill.training.session import Session, make_fabric
from tests.training.conftest import assert_same_weights, train_with_a_stop

pytestmark = pytest.mark.filterwarnings("ignore:weights .* are for 10 classes")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights for 10 classes, with BatchNorm statistics that are not the initial ones."""
    torch.manual_seed(0)
    model = build("resnet10_cifar", 10, width=4)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 3, 16, 16))
    file = tmp_path_factory.mktemp("weights") / "ten.pt"
    torch.save(model.state_dict(), file)
    return file


@pytest.fixture
def tuned(recipe: TrainConfig, weights: Path) -> TrainConfig:
    return replace(recipe, weights=str(weights), lr=None, method="CrossEntropy()")


def session_of(recipe: TrainConfig, data: ImageData) -> Session:
    return assemble(recipe.resolve(data), data, make_fabric(recipe, accelerator="cpu"))


def rates(session: Session, epoch: int) -> dict[str, float]:
    """The learning rate of each parameter of the model in the first step of an epoch."""
    batches = next(iter(session.task.loader.epoch(epoch)))
    session.task.set_training_mode()
    session.step(batches, epoch * session.steps, Meters(session.device, session.task.counts))
    names = {parameter: name for name, parameter in session.task.model.named_parameters()}
    return {names[p]: group["lr"] for group in session.optimizer.param_groups for p in group["params"] if p in names}


def test_defaults_depend_on_whether_weights_are_given(data: ImageData, tuned: TrainConfig) -> None:
    scratch = TrainConfig().resolve(data)
    assert (scratch.optimizer, scratch.epochs, scratch.schedule, scratch.weight_decay) == ("sgd", 200, "step", 1e-4)
    assert (scratch.backbone_lr, scratch.freeze_bn, scratch.linear_probe) == (None, False, False)
    fine = replace(tuned, epochs=None, batch_size=None).resolve(data)
    assert (fine.optimizer, fine.schedule, fine.batch_size, fine.epochs) == ("adamw", "cosine", 32, 100)
    assert (fine.lr, fine.freeze_bn, fine.linear_probe, fine.channels_last) == (1e-4, True, True, True)
    assert fine.backbone_lr == 3e-5
    assert replace(tuned, linear_probe=False).resolve(data).lr == 0.001


@pytest.mark.parametrize("images", [20, 400, 3000])
def test_fine_tuning_takes_500_steps_or_20_epochs(data: ImageData, images: int) -> None:
    large = replace(data, train=data.train.select(torch.arange(images) % 44))
    epochs = TrainConfig(weights="default").resolve(large).epochs
    steps = epochs * -(-images // 32)
    assert epochs == 100 or (epochs >= 20 and steps >= 500)


def test_linear_probe_is_logistic_regression(data: ImageData) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 4
    features = torch.randn(60, 5, generator=generator) + 2 * nn.functional.one_hot(labels, 5)
    scale = float(features.double().square().mean().sqrt())
    fitted = LogisticRegression(C=1.0, max_iter=1000).fit((features / scale).double().numpy(), labels.numpy())
    wanted = fitted.decision_function((features / scale).double().numpy())
    np.testing.assert_allclose(fit_linear_probe(features, labels, 4)(features).numpy(), wanted, atol=1e-3)


def test_linear_probe_of_two_classes_has_two_logits(data: ImageData) -> None:
    features = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    labels = (features[:, 0] > 0).long()
    logits = fit_linear_probe(features, labels, 2)(features)
    fitted = LogisticRegression(C=1.0, max_iter=1000)
    scale = float(features.double().square().mean().sqrt())
    posterior = fitted.fit((features / scale).double().numpy(), labels).predict_proba((features / scale).numpy())
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), posterior, atol=1e-3)


def test_a_class_without_images_never_wins_the_probe() -> None:
    probe = fit_linear_probe(torch.tensor([[3.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 2]), 3)
    assert probe(torch.tensor([[3.0, 0.0], [0.0, 3.0]])).argmax(dim=1).tolist() == [0, 2]


def test_a_new_head_starts_as_the_probe(data: ImageData, tuned: TrainConfig) -> None:
    task = session_of(tuned, data).task
    batches = list(task.test_batches())
    small = session_of(replace(tuned, linear_probe=False), data).task
    accuracy = {}
    for name, one in (("probe", task), ("small", small)):
        one.model.eval()
        hits = sum(int((one.model(x).argmax(dim=1) == y).sum()) for x, y in batches)
        accuracy[name] = hits / len(data.test)
    assert accuracy["probe"] == 1.0
    assert accuracy["small"] < 0.8
    assert float(small.model.fc.weight.detach().abs().max()) < 0.06


def test_pretrained_layers_have_the_backbone_rate(data: ImageData, tuned: TrainConfig) -> None:
    found = rates(session_of(replace(tuned, lr=0.1, backbone_lr=0.003, warmup_epochs=0), data), 0)
    assert {name: round(rate, 9) for name, rate in found.items() if name.startswith("fc")} == {
        "fc.weight": 0.1,
        "fc.bias": 0.1,
    }
    assert {round(rate, 9) for name, rate in found.items() if not name.startswith("fc")} == {0.003}


def test_layer_decay_lowers_the_rate_towards_the_input(tmp_path: Path, data: ImageData, tuned: TrainConfig) -> None:
    model = build("resnet18_cifar", 10, width=4)
    torch.save(model.state_dict(), tmp_path / "deep.pt")
    deep = replace(tuned, model="resnet18_cifar", weights=str(tmp_path / "deep.pt"), layer_decay=0.5, warmup_epochs=0)
    found = rates(session_of(deep, data), 0)
    in_order = [found[f"layer{stage}.1.conv2.weight"] for stage in (1, 2, 3, 4)]
    assert found["conv1.weight"] <= in_order[0] < in_order[-1] <= 3e-5 < found["fc.weight"]
    assert sorted(in_order) == in_order


def test_head_epochs_leave_the_backbone_as_it_is(data: ImageData, tuned: TrainConfig) -> None:
    session = session_of(replace(tuned, head_epochs=1, warmup_epochs=0), data)
    before = {name: value.clone() for name, value in session.task.model.named_parameters()}
    rates(session, 0)
    moved = {name for name, value in session.task.model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"fc.weight", "fc.bias"}
    assert rates(session, 1)["conv1.weight"] > 0


def test_a_frozen_backbone_changes_in_nothing(tmp_path: Path, data: ImageData, tuned: TrainConfig) -> None:
    recipe = replace(tuned, freeze="backbone", method="SDDropout()", data_root=str(tmp_path))
    start = session_of(recipe, data).task.model.state_dict()
    start = {name: value.clone() for name, value in start.items()}
    train(recipe, tmp_path / "run", data=data)
    end = load(tmp_path / "run").state_dict()
    assert {name for name in start if not torch.equal(start[name], end[name])} == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("method", ["SDDropout()", "CSKD() + LabelSmoothing()", "DDGSD()"])
def test_a_head_trains_on_features_as_on_images(
    tmp_path: Path, data: ImageData, tuned: TrainConfig, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(tuned, freeze="backbone", method=method, augment="none", data_root=str(tmp_path), lr=0.01)
    on_features = train(recipe, tmp_path / "features", data=data)
    monkeypatch.setattr(fine_tuning, "trains_on_features", lambda *_: False)
    on_images = train(recipe, tmp_path / "images", data=data)
    for name, value in load(tmp_path / "images").state_dict().items():
        torch.testing.assert_close(load(tmp_path / "features").state_dict()[name], value, rtol=1e-3, atol=1e-4)
    for metric in ("top1", "nll", "ece", "train_n", "train_top1"):
        of_features, of_images = (getattr(one.evaluation, metric) for one in (on_features, on_images))
        assert of_features == pytest.approx(of_images, rel=1e-3)
    assert on_features.rows[-1]["test_top1"] == on_features.evaluation.top1


def test_features_are_computed_once(
    tmp_path: Path, data: ImageData, tuned: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(tuned, freeze="backbone", augment="crop_flip", data_root=str(tmp_path))
    first = train(recipe, tmp_path / "one", data=data)
    (kept,) = (tmp_path / "cache").glob("*.features")
    monkeypatch.setattr(fine_tuning.features, "read_features", None)
    assert train(recipe, tmp_path / "two", data=data).evaluation == first.evaluation
    monkeypatch.undo()
    kept.write_bytes(kept.read_bytes()[:-1])  # damaged: made again
    assert train(recipe, tmp_path / "three", data=data).evaluation == first.evaluation
    train(replace(recipe, augment="crop"), tmp_path / "four", data=data)
    assert len(list((tmp_path / "cache").glob("*.features"))) == 2


def test_each_epoch_draws_among_the_views(tmp_path: Path, data: ImageData, tuned: TrainConfig) -> None:
    recipe = replace(tuned, freeze="backbone", augment="crop_flip", data_root=str(tmp_path))
    task = session_of(recipe, data).task
    drawn = [next(iter(task.loader.epoch(epoch)))[0].x for epoch in range(2)]
    assert drawn[0].ndim == 2
    views = task._features.views.flatten(0, 1)
    assert all(bool((row == views).all(dim=1).any()) for row in torch.cat(drawn))
    shares = [float((task._features.views[0] == other).all(dim=1).float().mean()) for other in task._features.views[1:]]
    assert max(shares) < 0.5  # the views differ


def test_a_method_that_reads_inner_stages_trains_on_images(tmp_path: Path, data: ImageData, tuned: TrainConfig) -> None:
    recipe = replace(tuned, freeze="backbone", method="BYOT()", data_root=str(tmp_path))
    record = train(recipe, tmp_path / "run", data=data)
    assert record.epochs == 3
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("freeze_bn", "same"), [(None, True), (False, False)])
def test_batchnorm_keeps_its_pretrained_statistics(
    tmp_path: Path, data: ImageData, tuned: TrainConfig, weights: Path, freeze_bn: bool | None, same: bool
) -> None:
    train(replace(tuned, freeze_bn=freeze_bn), tmp_path / "run", data=data)
    old, new = torch.load(weights, weights_only=True), load(tmp_path / "run").state_dict()
    kept = [torch.equal(old[name], new[name]) for name in old if name.endswith("running_mean")]
    assert all(kept) == same


def test_a_resumed_fine_tuning_is_bit_for_bit_the_same(tmp_path: Path, data: ImageData, tuned: TrainConfig) -> None:
    recipe = replace(tuned, method="SDDropout()", layer_decay=0.7, head_epochs=1)
    train(recipe, tmp_path / "whole", data=data)
    train_with_a_stop(recipe, tmp_path / "stopped", data)
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")


def test_images_are_normalised_as_the_weights_expect(data: ImageData) -> None:
    recipe = TrainConfig(model="timm:tf_efficientnet_lite0", weights="default")
    found = as_pretrained(recipe, data)
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert as_pretrained(replace(recipe, weights="none"), data).mean == data.mean


def test_a_model_of_fixed_size_refuses_other_images(data: ImageData) -> None:
    recipe = TrainConfig(model="timm:vit_tiny_patch16_224", weights="default")
    with pytest.raises(ArgumentError, match="224") as refused:
        as_pretrained(recipe, data)
    assert refused.value.argument == "image_size"
    assert pretrained("torchvision:vit_b_16") is not None


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"freeze": "backbone"}, "freeze"),
        ({"linear_probe": True}, "linear_probe"),
        ({"backbone_lr": 1e-3}, "backbone_lr"),
        ({"head_epochs": 1}, "head_epochs"),
        ({"weights": "default", "layer_decay": 1.5}, "layer_decay"),
        ({"weights": "default", "layer_decay": 0.0}, "layer_decay"),
        ({"weights": "default", "backbone_lr": -1.0}, "backbone_lr"),
        ({"weights": "default", "epochs": 3, "head_epochs": 3}, "head_epochs"),
        ({"weights": "default", "freeze": "head"}, "freeze"),
    ],
)
def test_wrong_choices_name_the_argument(values: dict, name: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        TrainConfig(**values)
    assert refused.value.argument == name


def test_an_unknown_optimizer_is_refused_with_the_nearest(data: ImageData, tuned: TrainConfig) -> None:
    with pytest.raises(ArgumentError, match="adamw"):
        session_of(replace(tuned, optimizer="adamww"), data)
