"""Names, foreign packages and their downloads."""

import subprocess
import sys
import urllib.error

import pytest
import torch
import torchvision
from torch import nn

from selfdistill.models import available, build


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


def test_available_names_all_build() -> None:
    ours = ["densenet121_cifar", "resnet10_cifar", "resnet18_byot224", "resnet18_cifar", "resnet34_cifar"]
    assert available() == ours
    with torch.device("meta"):
        for name in available():
            assert build(name, 3)(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 3)


def test_import_loads_no_foreign_package() -> None:
    code = (
        "import sys, selfdistill.models as m; m.build('resnet10_cifar', 2, width=4);"
        "print({'torchvision', 'timm', 'safetensors'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet10t", "timm:resnet10t.c3_in1k"])
def test_foreign_models_with_a_head_of_our_class_count(name: str) -> None:
    model = build(name, 7).eval()
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_are_left_out(name: str) -> None:
    with torch.device("meta"):
        model = build(f"torchvision:{name}", 7)
        assert model.train()(torch.empty(2, 3, 128, 128)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "nearest", "listing"),
    [
        ("resnet18_cifr", "did you mean 'resnet18_cifar'?", "selfdistill.models.available()"),
        (
            "resnet18",
            "did you mean 'resnet18_cifar'?",
            'other models are "torchvision:NAME", "timm:NAME" or "package.module:function"',
        ),
        ("torchvision:", "unknown model 'torchvision:'", "selfdistill.models.available()"),
        ("torchvision:resnet_18", "did you mean 'torchvision:resnet18'?", "torchvision.models.list_models"),
        ("torchvision:fcn_resnet50", "unknown model 'torchvision:fcn_resnet50'", "torchvision.models.list_models"),
        ("timm:resnet18.a1_in1", "did you mean 'timm:resnet18.a1_in1k'?", "timm.list_models(include_tags=True)"),
        ("timm:local-dir:/tmp", "unknown model 'timm:local-dir:/tmp'", "timm.list_models(include_tags=True)"),
    ],
)
def test_unknown_name(name: str, nearest: str, listing: str) -> None:
    with pytest.raises(ValueError, match="unknown model") as caught:
        build(name, 10)
    assert nearest in one_line(caught.value)
    assert listing in str(caught.value)


@pytest.mark.parametrize("arguments", [{"width": 8}, {"features": 8}, {"head_layers": 2}])
@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet10t"])
def test_our_arguments_on_a_foreign_model(name: str, arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="applies only to"):
        build(name, 10, **arguments)


@pytest.mark.parametrize("name", ["resnet10_cifar", "torchvision:resnet18", "timm:resnet10t"])
def test_one_class(name: str) -> None:
    with pytest.raises(ValueError, match=r"^`classes` "):
        build(name, 1)


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_missing_package(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RuntimeError, match=r'pip install "selfdistill\[lab\]"'):
        build(f"{package}:resnet18", 10)


def test_default_weights_of_our_own() -> None:
    with pytest.raises(ValueError, match=r"^`weights` .*resnet10_cifar"):
        build("resnet10_cifar", 10, weights="default")


def fake_download(monkeypatch: pytest.MonkeyPatch, result: dict[str, torch.Tensor] | Exception) -> None:
    def download(*_: object, **__: object) -> dict[str, torch.Tensor]:
        if isinstance(result, Exception):
            raise result
        return dict(result)

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", download)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet10t"])
@pytest.mark.parametrize("error", [urllib.error.URLError("no route to host"), RuntimeError("invalid hash\nat 3")])
def test_failing_download(name: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_download(monkeypatch, error)
    with pytest.raises(OSError, match="could not be downloaded") as caught:
        build(name, 10, weights="default")
    assert name in one_line(caught.value)
    assert "connect to the network, or give weights as a file or 'none'" in str(caught.value)


def test_timm_model_without_default_weights() -> None:
    with pytest.raises(ValueError, match=r"^`weights` .*timm:botnet50ts_256"):
        build("timm:botnet50ts_256", 10, weights="default")


@pytest.mark.parametrize("classes", [7, 1000])
@pytest.mark.parametrize(("name", "head"), [("torchvision:resnet18", "fc."), ("timm:resnet10t", "fc.")])
def test_default_weights_keep_all_but_the_head(
    name: str, head: str, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    trained = build(name, 1000).state_dict()
    fake_download(monkeypatch, trained)
    model = build(name, classes, weights="default")
    assert model.eval()(torch.randn(1, 3, 64, 64)).shape == (1, classes)
    for key, value in model.state_dict().items():
        if classes == 1000 or not key.startswith(head):
            assert torch.equal(value, trained[key]), key


@pytest.mark.parametrize(
    "name",
    # One of each family. RegNet reads a tensor's values while it is made, so it cannot be made without storage.
    [
        *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet"),
        *("inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "resnet18"),
        *("resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vit_h_14"),
    ],
)
def test_head_of_pretrained_torchvision_model_is_replaced(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", lambda *_, **__: {})
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda *_, **__: None)
    with torch.device("meta"):
        model = build(f"torchvision:{name}", 7, weights="default").eval()
        size = 518 if name == "vit_h_14" else 224
        assert model(torch.empty(1, 3, size, size)).shape == (1, 7)
