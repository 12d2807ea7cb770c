"""R-Drop against its formula, and the models that it cannot train."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfdistill import Dropout, LabelSmoothing, RDrop, SDDropout, SelfDistiller
from selfdistill.methods.r_drop import random_in_training
from tests.counting import gradients, rows_of_calls, updates
from tests.nets import CLASSES, ConvNet, batch, mlp
from tests.reference import r_drop

REFUSED = "compares two passes under the model's own dropout, but this {} has none that is active in training"


class Dropping(ConvNet):
    """Drops out its features by the function, as many models do."""

    def __init__(self, p: float = 0.3) -> None:
        super().__init__()
        self.p = p

    def features(self, x: Tensor) -> Tensor:
        return F.dropout(super().features(x), self.p, self.training)


class DropPath(nn.Module):
    """Leaves a layer out of some images, and seldom."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.layer = p, nn.Linear(192, 192)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x + self.layer(x)
        return x + self.layer(x) * x.new_empty(len(x), 1).bernoulli_(1 - self.p)


def dropping_mlp(p: float = 0.5) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 24), nn.ReLU(), nn.Dropout(p), nn.Linear(24, CLASSES))


@pytest.mark.parametrize("weight", [0.3, 0.0, 4.0])
def test_against_published_r_drop(weight: float) -> None:
    model, (x, y) = Dropping().double(), batch("conv")
    x = x.double()
    distiller = SelfDistiller(model, RDrop(weight), example_input=x)
    torch.manual_seed(5)
    output = distiller(x, y)

    plain = ConvNet().double()
    plain.load_state_dict(model.state_dict())
    torch.manual_seed(5)
    features = plain.features(torch.cat([x, x]))  # one pass of 2B
    mask = F.dropout(torch.ones_like(features), 0.3)
    z_1, z_2 = plain.fc(features * mask).chunk(2)
    assert not torch.equal(z_1, z_2)
    expected = r_drop.loss_total(z_1, z_2, y.tolist(), weight=weight)
    torch.testing.assert_close(output.loss, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients(output.loss, model), gradients(expected, plain), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(output.loss.detach(), output.terms["ce"] + weight * output.terms["rdrop"])
    torch.testing.assert_close(output.logits, z_1)


def test_published_code_for_images_is_twice_this() -> None:
    """CE + CE + 0.3 (KL + KL), the divergences averaged over the batch."""
    model, (x, y) = dropping_mlp().double(), batch("mlp")
    seen: list[Tensor] = []
    distiller = SelfDistiller(model, RDrop(), example_input=x.double())
    model.register_forward_hook(lambda _m, _args, out: seen.append(out))
    loss = distiller(x.double(), y).loss
    log_1, log_2 = seen[0].log_softmax(1).chunk(2)
    there = F.kl_div(log_1, log_2.exp(), reduction="sum") + F.kl_div(log_2, log_1.exp(), reduction="sum")
    both = F.nll_loss(log_1, y) + F.nll_loss(log_2, y) + 0.3 * there / 6
    torch.testing.assert_close(2 * loss, both)


def test_both_pass_at_once() -> None:
    """One call of 2B images; BatchNorm counts it once."""
    model, (x, y) = Dropping(), batch("conv")
    distiller = SelfDistiller(model, RDrop(), example_input=x)
    calls, norms = rows_of_calls(model), rows_of_calls(model.norm)
    distiller(x, y)
    assert calls == norms == [12]
    assert updates(model) == {1}


def test_the_gradient_flows_through_every_side() -> None:
    """The posteriors change places freely, which a constant side would not allow."""
    model, (x, y) = dropping_mlp().double(), batch("mlp")
    seen: list[Tensor] = []
    distiller = SelfDistiller(model, RDrop(weight=1e6), example_input=x.double())
    model.register_forward_hook(lambda _m, _args, out: seen.append(out))
    loss = distiller(x.double(), y).loss
    (gradient,) = torch.autograd.grad(loss, seen[0])
    p, q = seen[0].detach().softmax(1).chunk(2)
    ratio = (p / q).log()
    by_hand = ((p - q) + p * (ratio - (p * ratio).sum(1, keepdim=True))) / 2 / 6  # closed forms, forward + reverse
    torch.testing.assert_close(gradient[:6] / 1e6, by_hand, rtol=1e-4, atol=1e-6)


def test_without_weight_it_is_cross_entropy_on_each_image_twice() -> None:
    model, (x, y) = dropping_mlp(), batch("mlp")
    distiller = SelfDistiller(model, RDrop(weight=0.0), example_input=x)
    torch.manual_seed(5)
    loss = distiller(x, y).loss
    torch.manual_seed(5)
    torch.testing.assert_close(loss, F.cross_entropy(model(torch.cat([x, x])), torch.cat([y, y])))


def test_label_smoothing_and_soft_labels() -> None:
    model, (x, y) = dropping_mlp(), batch("mlp")
    losses = []
    for labels in (y, F.one_hot(y, CLASSES).float()):
        torch.manual_seed(5)
        losses.append(SelfDistiller(model, LabelSmoothing() + RDrop(), head="4", example_input=x)(x, labels).loss)
    torch.testing.assert_close(*losses)


def test_sums() -> None:
    model, (x, y) = dropping_mlp(), batch("mlp")
    with pytest.warns(UserWarning, match="drops out its features itself"):
        output = SelfDistiller(model, RDrop() + SDDropout(weight=0.1), example_input=x)(x, y)
    assert list(output.terms) == ["ce", "rdrop", "sdd"]
    with pytest.raises(ValueError, match="both replace what the cross-entropy is computed on"):
        RDrop() + Dropout()


# The check


@pytest.mark.parametrize(
    "model",
    [mlp(), dropping_mlp(0.0), ConvNet(), Dropping(0.0), nn.Sequential(nn.Flatten(), DropPath(0.0), nn.Linear(192, 5))],
    ids=["none", "p=0", "BatchNorm", "function", "drop path"],
)
def test_a_model_without_dropout_is_refused(model: nn.Module) -> None:
    model, (x, y) = copy.deepcopy(model), batch("mlp")
    distiller = SelfDistiller(model, RDrop() + LabelSmoothing())
    for _ in range(2):
        with pytest.raises(ValueError, match=REFUSED.format(type(model).__name__)):
            distiller(x, y)
    model = copy.deepcopy(distiller.release())
    with pytest.raises(ValueError, match="or use SDDropout"):
        SelfDistiller(model, RDrop(), example_input=x)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    "model",
    [
        dropping_mlp(1e-6),
        Dropping(),
        nn.Sequential(nn.Flatten(), DropPath(1e-6), nn.Linear(192, 5)),
        nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.ReLU(), nn.Linear(8, 5)),
    ],
    ids=["dropout", "function", "drop path", "on what BatchNorm makes 0"],
)
def test_rare_dropout_counts(model: nn.Module) -> None:
    """Whether anything was dropped from the example is chance; whether the model draws is not."""
    model, (x, y) = copy.deepcopy(model), batch("mlp")
    assert torch.isfinite(SelfDistiller(model, RDrop())(x, y).loss)


def test_randomness_from_elsewhere_counts() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.generator = nn.Linear(192, CLASSES), torch.Generator().manual_seed(0)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x.flatten(1)) + torch.rand(len(x), 1, generator=self.generator)

    assert random_in_training(Noisy(), torch.zeros(2, 3, 8, 8))


def test_dropout_that_was_put_to_sleep_does_not_count() -> None:
    """A model in training mode is looked at as it is; one in evaluation mode as it will be trained."""
    model, (x, y) = dropping_mlp(), batch("mlp")
    model[3].eval()
    with pytest.raises(ValueError, match=REFUSED.format("Sequential")):
        SelfDistiller(model, RDrop(), example_input=x)
    model.eval()
    distiller = SelfDistiller(model, RDrop(), example_input=x)
    assert not any(module.training for module in model.modules())
    distiller.train()
    assert distiller(x, y).terms["rdrop"] > 0


def test_the_check_leaves_no_trace() -> None:
    model, (x, _) = Dropping(), batch("conv")
    model(x)  # statistics that are not those of a new model
    model.after.eval()
    before, random_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    buffers = [id(buffer) for buffer in model.buffers()]
    assert random_in_training(model, x)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in model.modules()] == modes
    assert [id(buffer) for buffer in model.buffers()] == buffers
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_check_puts_back_a_buffer_that_the_model_replaces() -> None:
    class Counting(nn.Module):
        calls: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(192, CLASSES)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls = self.calls + 1
            return self.fc(F.dropout(x.flatten(1), 0.5))

    model = Counting()
    assert random_in_training(model, torch.randn(2, 3, 8, 8))
    assert model.calls == 0


def test_the_check_takes_one_image_mappings_and_errors() -> None:
    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, CLASSES))

        def forward(self, values: Tensor, scale: Any = None) -> dict[str, Tensor]:
            if len(values) == 3:
                raise RuntimeError("on purpose")
            return {"logits": self.fc(values)}

    model = Text()
    assert random_in_training(model, {"values": torch.randn(1, 4), "scale": None})
    model.register_forward_pre_hook(lambda _m, _args: (_ for _ in ()).throw(RuntimeError("on purpose")))
    with pytest.raises(RuntimeError, match="on purpose"):
        random_in_training(model, {"values": torch.randn(1, 4)})
    assert model.training
    assert model.fc[0].num_batches_tracked == 0


@pytest.mark.parametrize("weight", [-0.1, float("inf"), float("nan")])
def test_bad_weight(weight: float) -> None:
    with pytest.raises(ValueError, match="RDrop: weight must be at least 0 and finite, not"):
        RDrop(weight)


def test_default() -> None:
    assert RDrop().weight == 0.3
    assert repr(RDrop(weight=1.0)) == "RDrop(weight=1.0)"
