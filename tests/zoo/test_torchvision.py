"""One small member of every torchvision classification family, at a small size whose last map is no single pixel.

The two that take longest are slow tests.
"""

from collections.abc import Callable

import pytest
import torch
import torchvision

from selfdistill import SDDropout, SelfDistiller
from selfdistill.models import build

FAMILIES = [
    ("alexnet", 96, "classifier.6"),
    ("convnext_tiny", 64, "classifier.2"),
    ("densenet121", 64, "classifier"),
    ("efficientnet_b0", 64, "classifier.1"),
    ("googlenet", 64, "fc"),
    ("inception_v3", 112, "fc"),
    ("maxvit_t", 224, "classifier.5"),
    ("mnasnet0_5", 64, "classifier.1"),
    ("mobilenet_v2", 64, "classifier.1"),
    ("mobilenet_v3_small", 64, "classifier.3"),
    ("regnet_y_400mf", 64, "fc"),
    ("resnet18", 64, "fc"),
    ("shufflenet_v2_x0_5", 64, "fc"),
    ("swin_t", 64, "head"),
    ("vgg11", 64, "classifier.6"),
    ("vit_b_32", 224, "heads.head"),
]


SLOW = ("maxvit_t", "vgg11")


@pytest.mark.parametrize(
    ("name", "size", "head"),
    [pytest.param(*one, id=one[0], marks=[pytest.mark.slow] if one[0] in SLOW else []) for one in FAMILIES],
)
def test_head_is_found(name: str, size: int, head: str, check_model: Callable[..., str]) -> None:
    assert check_model(build(f"torchvision:{name}", 10), torch.randn(2, 3, size, size), 10) == head


def test_squeezenet_pools_after_its_classifier(check_model: Callable[..., str]) -> None:
    model, x = build("torchvision:squeezenet1_1", 10), torch.randn(2, 3, 64, 64)
    with pytest.raises(ValueError, match=r"pools after its classifier: .* pass head=, the dotted name"):
        SelfDistiller(model, SDDropout(), example_input=x)
    assert check_model(model, x, 10, head="classifier") == "classifier"


def test_no_family_is_left_out() -> None:
    def family(name: str) -> str:
        return torchvision.models.get_model_builder(name).__module__

    every = {family(name) for name in torchvision.models.list_models(module=torchvision.models)}
    assert every == {family(name) for name, _, _ in FAMILIES} | {"torchvision.models.squeezenet"}
