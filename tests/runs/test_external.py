"""Networks that are no runs of ours, with checkpoints that these tests write."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from selfdistill.data import load_data
from selfdistill.data.folders import IMAGENET_MEAN, IMAGENET_STD
from selfdistill.models import build
from selfdistill.runs.external import ExternalModel, load_external

TORCHVISION, TIMM, OWN = "torchvision:resnet18", "timm:test_resnet", "resnet10_cifar"


def weights(model: str, classes: int = 3, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return build(model, classes, width=4 if model == OWN else None).state_dict()


def load(model: str, checkpoint: Path | None, data: str | Path, **settings: object) -> ExternalModel:
    return load_external(model, checkpoint, str(data), data_root=Path("data"), **settings)  # type: ignore[arg-type]


def fails(model: str, checkpoint: Path | None, data: str | Path, **settings: object) -> str:
    with pytest.raises(ValueError, match=r"\w") as raised:
        load(model, checkpoint, data, **settings)
    message = str(raised.value)
    assert "\n" not in message
    return message


def same(network: nn.Module, state: dict[str, Tensor]) -> bool:
    own = network.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[key], state[key]) for key in state)


@pytest.mark.parametrize("model", [TORCHVISION, TIMM, OWN])
@pytest.mark.parametrize("kind", ["plain.pt", "plain.pth", "plain.safetensors", "parallel.pt"])
def test_the_weights_of_a_file(tmp_path: Path, pictures: Path, model: str, kind: str) -> None:
    state, file = weights(model), tmp_path / kind
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        prefix = "module." if kind == "parallel.pt" else ""
        torch.save({"state_dict": {prefix + key: value for key, value in state.items()}}, file)
    foreign = load(model, file, pictures, image_size=32, **({"width": 4} if model == OWN else {}))
    assert same(foreign.model, state)
    assert not foreign.model.training
    assert foreign.data.classes == ("one", "two", "zero")
    with torch.no_grad():
        assert foreign.model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


@pytest.fixture
def checkpoint(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    torch.save(weights(request.param), tmp_path / "net.pt")
    return tmp_path / "net.pt"


@pytest.mark.parametrize("checkpoint", [TORCHVISION], indirect=True)
def test_torchvision_s_size_and_constants(checkpoint: Path, photos: Path) -> None:
    foreign = load(TORCHVISION, checkpoint, photos)
    assert (foreign.data.image_size, foreign.data.mean, foreign.data.std) == (224, IMAGENET_MEAN, IMAGENET_STD)
    how = "shorter side to 256 px, central square of 224 px, bilinear"
    by = "normalised by the mean and deviation of torchvision's weights"
    assert foreign.prepared == f"{how}; {by}, which torchvision tests with: {how}"


@pytest.mark.parametrize("checkpoint", [TIMM], indirect=True)
def test_timm_s_size_and_constants(checkpoint: Path, photos: Path) -> None:
    foreign = load(TIMM, checkpoint, photos)
    told = timm.create_model("test_resnet").pretrained_cfg
    assert told["mean"] == (0.5, 0.5, 0.5), "other constants than a photograph's usual ones"
    assert (foreign.data.mean, foreign.data.std) == (told["mean"], told["std"])
    assert foreign.data.image_size == told["input_size"][-1] == 160
    assert foreign.prepared == (
        "shorter side to 168 px, central square of 160 px, bilinear; normalised by the mean and deviation of timm's "
        "weights, which timm tests with: 160 px, crop_pct 0.95, crop_mode center, bilinear"
    )


@pytest.mark.parametrize("checkpoint", ["timm:resnet18.a1_in1k"], indirect=True)
def test_timm_tests_at_another_size_than_it_trained(checkpoint: Path, pictures: Path) -> None:
    foreign = load("timm:resnet18.a1_in1k", checkpoint, pictures, image_size=32)
    assert foreign.data.image_size == 32
    assert foreign.prepared.startswith("whole images as squares of 32 px; normalised by")
    assert foreign.prepared.endswith("timm tests with: 288 px, crop_pct 1, crop_mode center, bicubic")


@pytest.mark.parametrize("checkpoint", [OWN], indirect=True)
def test_our_own_networks_take_the_set_s_constants(checkpoint: Path, pictures: Path) -> None:
    foreign = load(OWN, checkpoint, pictures, width=4)
    data = load_data(pictures, image_size=32)
    assert (foreign.data.image_size, foreign.data.mean, foreign.data.std) == (32, data.mean, data.std)
    assert foreign.prepared.endswith("; normalised by the mean and deviation of digits3")


@pytest.mark.parametrize("checkpoint", [OWN], indirect=True)
def test_which_images_are_scored(checkpoint: Path, pictures: Path) -> None:
    two = load(OWN, checkpoint, pictures, width=4).data
    assert (len(two.train), len(two.test), two.test_split_description) == (24, 18, "test folder")
    one = load(OWN, checkpoint, pictures / "test", width=4).data
    assert (len(one.test), one.test_split_description) == (18, "all images")


@pytest.mark.parametrize("checkpoint", [OWN], indirect=True)
@pytest.mark.parametrize("part", ["val", "test"])
def test_a_folder_of_validation_images_alone(checkpoint: Path, pictures: Path, tmp_path: Path, part: str) -> None:
    shutil.copytree(pictures / "test", tmp_path / "imagenet" / part)
    alone = load(OWN, checkpoint, tmp_path / "imagenet", width=4).data
    assert (alone.name, len(alone.test), alone.test_split_description) == ("imagenet", 18, "all images")
    inside = load(OWN, checkpoint, pictures / "test", width=4).data
    assert alone.test.images is not None
    assert inside.test.images is not None
    assert torch.equal(alone.test.images, inside.test.images)
    assert torch.equal(alone.test.labels, inside.test.labels)
    shutil.copytree(pictures / "train", tmp_path / "imagenet/train")
    both = load(OWN, checkpoint, tmp_path / "imagenet", width=4).data
    assert (len(both.train), len(both.test), both.test_split_description) == (24, 18, f"{part} folder")


@pytest.mark.parametrize("checkpoint", [TORCHVISION], indirect=True)
def test_another_mean_and_deviation(checkpoint: Path, pictures: Path) -> None:
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    foreign = load(TORCHVISION, checkpoint, pictures, image_size=32, mean=mean, std=std)
    assert (foreign.data.mean, foreign.data.std) == (mean, std)
    assert foreign.prepared.startswith(
        "whole images as squares of 32 px; normalised by mean 0.4914 0.4822 0.4465 and deviation 0.2023 0.1994 0.201; "
        "torchvision tests with: "
    )
    one = load(TORCHVISION, checkpoint, pictures, image_size=32, std=std)
    assert (one.data.mean, one.data.std) == (IMAGENET_MEAN, std)
    black = load(TORCHVISION, checkpoint, pictures, image_size=32, mean=(0.0, 0.0, 0.0)).data
    assert (black.mean, black.std) == ((0.0, 0.0, 0.0), IMAGENET_STD)


@pytest.mark.parametrize("checkpoint", [OWN], indirect=True)
def test_a_mean_and_deviation_for_our_own_network(checkpoint: Path, pictures: Path) -> None:
    foreign = load(OWN, checkpoint, pictures, width=4, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert foreign.prepared == (
        "whole images as squares of 32 px; normalised by mean 0.5 0.5 0.5 and deviation 0.25 0.25 0.25"
    )


@pytest.mark.parametrize("checkpoint", [TORCHVISION], indirect=True)
@pytest.mark.parametrize(
    ("option", "values", "told"),
    [
        ("mean", (123.675, 116.28, 103.53), "`mean` "),
        ("mean", (0.5,), "`mean` "),
        ("mean", (0.5, float("nan"), 0.5), "`mean` "),
        ("std", (0.2, 0.0, 0.2), "`std` "),
    ],
)
def test_constants_of_other_units(checkpoint: Path, option: str, values: tuple[float, ...], told: str) -> None:
    assert fails(TORCHVISION, checkpoint, "nowhere", **{option: values}).startswith(told)


@pytest.mark.parametrize("model", [TORCHVISION, TIMM, OWN])
def test_a_checkpoint_of_other_classes(tmp_path: Path, pictures: Path, model: str) -> None:
    file = tmp_path / "net, not mine: v2.pt"
    torch.save(weights(model, classes=7), file)
    width = {"width": 4} if model == OWN else {}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        message = fails(model, file, pictures, image_size=32, **width)
    assert message == (
        f"weights {str(file)!r} are for 7 classes, but digits3 has 3: measure on images of the classes that they were "
        "trained on"
    )
    assert not told


@pytest.mark.parametrize("model", [TORCHVISION, TIMM, "timm:resnet18.a1_in1k"])
def test_pretrained_weights_of_other_classes(pictures: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("weights that do not fit are not worth a download")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    assert fails(model, None, pictures, image_size=32) == (
        f"the pretrained weights of {model} are for 1000 classes, but digits3 has 3: measure on images of those "
        "classes, or give weights with `checkpoint`"
    )


def test_files_and_names_that_are_not_there(tmp_path: Path) -> None:
    """All told before a set of images is looked for."""
    nowhere = tmp_path / "nowhere"
    for place in (nowhere, tmp_path):
        assert fails(TORCHVISION, place, nowhere) == (
            f"`checkpoint` is {place}, which does not exist: name the file with the weights of {TORCHVISION}"
        )
    assert fails(OWN, None, nowhere) == f"{OWN} has no pretrained weights: name a file of weights with `checkpoint`"
    assert "did you mean 'torchvision:resnet18'?" in fails("torchvision:resnet_18", None, nowhere)
    assert "did you mean 'timm:resnet18.a1_in1k'?" in fails("timm:resnet18.a1_in2k", None, nowhere)
    assert "unknown model 'timm:nothing_at_all'" in fails("timm:nothing_at_all", None, nowhere)
    assert "did you mean 'resnet10_cifar'?" in fails("resnet10_cifer", None, nowhere)


def test_a_file_of_another_network(tmp_path: Path, pictures: Path) -> None:
    torch.save(weights(TIMM), tmp_path / "net.pt")
    assert "do not fit this model; missing: " in fails(TORCHVISION, tmp_path / "net.pt", pictures, image_size=32)
    (tmp_path / "net.pt").write_bytes(b"damaged")
    assert f"`checkpoint` '{tmp_path}/net.pt' " in fails(TORCHVISION, tmp_path / "net.pt", pictures, image_size=32)


def test_a_width_belongs_to_our_own_networks(tmp_path: Path, pictures: Path) -> None:
    torch.save(weights(TORCHVISION), tmp_path / "net.pt")
    message = fails(TORCHVISION, tmp_path / "net.pt", pictures, image_size=32, width=8)
    assert message.startswith("`width` applies only to ")


def test_a_size_that_the_network_refuses(tmp_path: Path, pictures: Path) -> None:
    torch.save(weights("timm:vit_tiny_patch16_224"), tmp_path / "net.pt")
    message = fails("timm:vit_tiny_patch16_224", tmp_path / "net.pt", pictures, image_size=64)
    assert message.startswith("`model`: timm:vit_tiny_patch16_224 does not take images of 64 px with 3 channels (")
    assert message.endswith("give its size with `image_size`, or images of its channels")


def test_pretrained_weights_of_the_right_number_of_classes(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's own file, where it keeps what it downloaded, and a set of as many classes."""
    class_names = tuple(f"{number:04}" for number in range(1000))
    state = weights(TORCHVISION, classes=1000)
    file = models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(state, tmp_path / "hub/checkpoints" / file)
    monkeypatch.setattr("selfdistill.models.external._check_cached", lambda url: None)  # its name holds a checksum
    labels = np.arange(2000) % 1000
    np.savez(tmp_path / "set.npz", images=np.zeros((2000, 8, 8), np.uint8), labels=labels, classes=class_names)
    foreign = load(TORCHVISION, None, tmp_path / "set.npz", image_size=32)
    assert same(foreign.model, state)
    assert (len(foreign.data.test), foreign.data.mean) == (2000, IMAGENET_MEAN)
