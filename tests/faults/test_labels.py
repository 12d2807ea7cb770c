"""Labels that are no class: -100, which PyTorch's cross-entropy skips while every other term would not."""

from typing import Any

import pytest
import torch
from torch import Tensor

from selfdistill import CrossEntropy, SDDropout, SelfDistiller
from selfdistill.integrations.lightning import DistillerModule
from selfdistill.integrations.timm import DistillerTask
from selfdistill.methods import parse_method
from tests.methods.settings import ALONE, needed, wrap
from tests.nets import CLASSES, batch, mlp


def wrong(y: Tensor, value: float) -> Tensor:
    y = y.clone()
    y[2] = value
    return y


@pytest.mark.parametrize("text", ALONE)
@pytest.mark.parametrize("value", [-100, CLASSES])
@pytest.mark.parametrize("step", [0, 1])
def test_a_label_that_is_no_class_is_refused_by_every_method(text: str, value: int, step: int) -> None:
    net = "conv" if "BYOT" in text else "mlp"
    x, y = batch(net)
    method = parse_method(text.format(inner="1", peer=None))
    distiller = wrap(net, method, x)
    further = needed(method, x, y)
    for _ in range(step):
        distiller(x, y, **further)
    with pytest.raises(ValueError, match=rf"the labels hold {value}, which is no class in 0\.\.4"):
        distiller(x, wrong(y, value), **further)
    with pytest.raises(ValueError, match="the labels hold"):
        distiller.eval()(x, wrong(y, value))


def test_labels_of_the_previous_batch_are_checked_too() -> None:
    x, y = batch("mlp")
    distiller = wrap("mlp", parse_method("DLB()"), x)
    distiller(x, y)
    with pytest.raises(ValueError, match="the labels hold -100"):
        distiller(x, y, previous=(x, wrong(y, -100)))


@pytest.mark.parametrize("value", [-100.0, float("nan")])
@pytest.mark.parametrize("text", ["CrossEntropy()", "LabelSmoothing()", "PSKD(samples=12)"])
def test_probabilities_that_are_none_are_refused(text: str, value: float) -> None:
    x, y = batch("mlp")
    distiller = wrap("mlp", parse_method(text), x)
    labels = torch.eye(CLASSES)[y]
    labels[1] = value
    with pytest.raises(ValueError, match="which is no probability"):
        distiller(x, labels, **needed(distiller.method, x, y))


@pytest.mark.parametrize("labels", [torch.zeros(6, 1), torch.zeros(6), torch.zeros(5).long(), torch.zeros(6, 4)])
def test_labels_of_another_shape_or_type_are_refused(labels: Tensor) -> None:
    x, _ = batch("mlp")
    for training in (True, False):
        with pytest.raises(ValueError, match=r"do not fit logits \(6, 5\)"):
            SelfDistiller(mlp(), SDDropout()).train(training)(x, labels)


@pytest.mark.parametrize("text", ["CrossEntropy()", "LabelSmoothing()", "SDDropout()"])
def test_compiled_it_is_refused_too(text: str) -> None:
    """There nothing looks at the labels' values: the cross-entropy itself does, where no label is special."""
    torch._dynamo.reset()
    x, y = batch("mlp")
    distiller = torch.compile(wrap("mlp", parse_method(text), x), backend="aot_eager", fullgraph=True)
    assert distiller(x, y).loss.isfinite()
    with pytest.raises((IndexError, RuntimeError), match=r"out of bounds|out of range"):
        distiller(x, wrong(y, -100))
    torch._dynamo.reset()


def test_integrations_refuse_them() -> None:
    (x, y), model = batch("mlp"), mlp()
    of_lightning = DistillerModule(SelfDistiller(model, CrossEntropy()), lambda p: torch.optim.SGD(p, lr=0.1))
    of_timm = DistillerTask(SelfDistiller(model, SDDropout()), verbose=False)
    steps: list[Any] = [
        lambda labels: of_lightning.training_step((x, labels), 0),
        lambda labels: of_lightning.eval().validation_step((x, labels), 0),
        lambda labels: of_timm(x, labels),
    ]
    for step in steps:
        with pytest.raises(ValueError, match="the labels hold -100"):
            step(wrong(y, -100))


def test_hugging_face_refuses_them(tmp_path: Any) -> None:
    import transformers as hf

    from selfdistill.integrations.huggingface import DistillerTrainer

    config = hf.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=8, patch_size=4,
        num_labels=3,
    )  # fmt: skip
    images = [{"pixel_values": torch.randn(3, 8, 8), "labels": label} for label in (0, 1, -100, 2)]
    arguments = hf.TrainingArguments(str(tmp_path), max_steps=1, report_to="none", use_cpu=True)
    distiller = SelfDistiller(hf.ViTForImageClassification(config), SDDropout())
    trainer = DistillerTrainer(distiller, arguments, train_dataset=images, eval_dataset=images)
    for run in (trainer.train, trainer.evaluate):
        with pytest.raises(ValueError, match="the labels hold -100"):
            run()


def test_only_the_first_batch_waits_for_another_device() -> None:
    """Labels that are not on the CPU are looked at once: later ones would make each step wait for the device."""
    x, y = batch("mlp")
    distiller = SelfDistiller(mlp(), CrossEntropy(), head="3").to("meta")
    distiller._probed = True  # a probe looks at values, which a meta tensor has not
    distiller._checked_labels = True
    assert distiller(x.to("meta"), wrong(y, -100).to("meta")).loss.device.type == "meta"
    assert distiller._checked_labels
