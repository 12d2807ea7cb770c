"""Mixup, CutMix, TrivialAugment, RandAugment and erasing: what they do, what refuses them, and that runs resume."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData, TrainLoader
from selfdistill.data.augment import Policy
from selfdistill.errors import ArgumentError
from selfdistill.method import Needs
from selfdistill.training import train
from selfdistill.training.mixing import mixing
from tests.training.conftest import assert_same_weights, train_with_a_stop

Changes = dict[str, object]


def resolved(recipe: TrainConfig, data: ImageData, **changes: object) -> TrainConfig:
    return replace(recipe, **changes).resolve(data)


def test_mixup_blends_each_image_and_label_with_the_one_before(data: ImageData, recipe: TrainConfig) -> None:
    mix = mixing(resolved(recipe, data, mixup=0.4))
    x, y = torch.randn(6, 3, 16, 16), torch.arange(6) % len(data.classes)
    mixed, labels = mix(x, y)
    share = float((mixed[1] - x[0]).norm() / (x[1] - x[0]).norm())
    torch.testing.assert_close(mixed, share * x + (1 - share) * x.roll(1, 0), rtol=1e-4, atol=1e-4)
    hot = torch.nn.functional.one_hot(y, len(data.classes)).float()
    torch.testing.assert_close(labels, share * hot + (1 - share) * hot.roll(1, 0), rtol=1e-4, atol=1e-4)


def test_cutmix_labels_are_the_shares_of_the_area(data: ImageData, recipe: TrainConfig) -> None:
    mix = mixing(resolved(recipe, data, cutmix=1.0))
    x, y = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    for _ in range(5):
        mixed, labels = mix(x, y)
        assert set(mixed[1].unique().tolist()) <= {0.0, 1.0}
        own = float((mixed[1] == 1.0).float().mean())
        assert labels[1].tolist() == pytest.approx([1 - own, own, *[0.0] * (len(data.classes) - 2)], abs=1e-6)


@pytest.mark.parametrize("method", ["CSKD()", "DDGSD()", "PSKD(samples=44)", "DLB()", "BAKE()", "SDDropout() + CSKD()"])
def test_methods_that_need_the_images_own_classes_refuse(data: ImageData, recipe: TrainConfig, method: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        mixing(resolved(recipe, data, cutmix=1.0, method=method))
    assert refused.value.argument == "cutmix"


def test_a_head_on_features_refuses(tmp_path: Path, data: ImageData, recipe: TrainConfig) -> None:
    train(replace(recipe, epochs=1), tmp_path / "start", data=data)
    changes: Changes = {"weights": str(tmp_path / "start"), "freeze": "backbone", "mixup": 0.2}
    with pytest.raises(ArgumentError) as refused:
        train(replace(recipe, **changes), tmp_path / "run", data=data)
    assert refused.value.argument == "mixup"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"mixup": 0.2, "cutmix": 1.0, "method": "SDDropout() + LabelSmoothing()"},
        {"auto_augment": "rand", "erasing": 0.5, "method": "BYOT()"},
        {"class_weights": "balanced", "schedule": "one_cycle", "method": "LabelSmoothing()"},
        {"balanced_sampling": True, "method": "CSKD() + DLB() + PSKD(samples=44)"},
        {"balanced_sampling": True, "method": "BAKE(partners=1)"},
        {"gradient_checkpointing": True, "model": "timm:test_resnet", "width": None},
    ],
)
def test_a_resumed_run_is_bit_for_bit_the_same(
    tmp_path: Path, data: ImageData, recipe: TrainConfig, changes: Changes
) -> None:
    recipe = replace(recipe, **changes)
    train(recipe, tmp_path / "whole", data=data)
    train_with_a_stop(recipe, tmp_path / "stopped", data)
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")


def test_the_scale_of_a_float16_loss_is_resumed(
    tmp_path: Path, data: ImageData, recipe: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU, where a user is refused it."""
    scales = []

    def make(*_: object, **__: object) -> Fabric:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4)
        scales.append(scaler)
        return Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])

    monkeypatch.setattr("selfdistill.training.run.make_fabric", make)
    recipe = replace(recipe, precision="16-mixed")
    train(recipe, tmp_path / "whole", data=data)
    train_with_a_stop(recipe, tmp_path / "stopped", data)
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")
    assert scales[0].get_scale() == scales[2].get_scale() == 2.0**12  # 9 steps


def images_of(data: ImageData, policy: Policy, batch_size: int, seed: int = 0) -> torch.Tensor:
    """The augmented images of an epoch, in the order of the training set."""
    loader = TrainLoader(
        data,
        Needs(index=True),
        batch_size=batch_size,
        seed=seed,
        augment="none",
        policy=policy,
        device="cpu",
        workers=0,
    )
    batches = [batch for (batch,) in loader.epoch(0)]
    order = torch.cat([batch.index for batch in batches if batch.index is not None]).argsort()
    return torch.cat([batch.x for batch in batches])[order]


@pytest.mark.parametrize("policy", [Policy("trivial"), Policy("rand"), Policy(erasing=1.0)])
def test_an_image_changes_by_seed_epoch_and_position_alone(data: ImageData, policy: Policy) -> None:
    before = torch.get_rng_state()
    one = images_of(data, policy, batch_size=16)
    assert torch.equal(one, images_of(data, policy, batch_size=5))
    assert not torch.equal(one, images_of(data, policy, batch_size=16, seed=1))
    assert not torch.equal(one, images_of(data, Policy(), batch_size=16))
    assert torch.equal(before, torch.get_rng_state())


def test_erasing_blackens_a_rectangle(data: ImageData) -> None:
    plain, erased = images_of(data, Policy(), 16), images_of(data, Policy(erasing=1.0), 16)
    black = torch.tensor([-m / s for m, s in zip(data.mean, data.std, strict=True)]).view(3, 1, 1)
    changed = (plain != erased).any(dim=1)
    for image, mask in zip(erased, changed, strict=True):
        if mask.any():
            assert torch.allclose(image[:, mask], black.expand(3, *mask.shape)[:, mask], atol=1e-5)
    assert changed.flatten(1).any(dim=1).float().mean() > 0.5
