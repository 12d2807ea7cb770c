"""What every method and every sum of the paper promises, on every kind of net."""

import copy
import inspect
import pickle
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from selfdistill import CrossEntropy, Method, SelfDistiller, methods
from selfdistill.methods import parse_method
from selfdistill.network import call, logits_of
from tests.methods.settings import ALONE, every_method, model_for, needed, wrap
from tests.nets import CLASSES, INNER, NETS, batch, mlp

CASES = [pytest.param(net, method, id=f"{net}-{method!r}") for net in NETS for method in every_method(net)]
every_method_on_every_net = pytest.mark.parametrize(("net", "method"), CASES)

SPANNING = [case for case in CASES if case.id.startswith("conv") or ("+" in case.id and case.id.startswith("mapping"))]
a_spanning_subset = pytest.mark.parametrize(("net", "method"), SPANNING)

COMPILED = [case for case in CASES if case.id.startswith("mlp") or "BYOT" in case.id]


def wrapped(net: str, method: Method) -> tuple[SelfDistiller, Any, Tensor, dict[str, Any]]:
    x, y = batch(net)
    return wrap(net, method, x), x, y, needed(method, x, y)


def test_the_settings_leave_no_method_out() -> None:
    assert {text.partition("(")[0] for text in ALONE} == set(methods.__all__)


@every_method_on_every_net
def test_the_loss_is_finite_and_reaches_every_parameter(net: str, method: Method) -> None:
    distiller, x, y, further = wrapped(net, method)
    for _ in range(2):  # the second step of a method that remembers the first
        loss, logits, terms = distiller(x, y, **further)
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert logits.shape == (6, CLASSES)
    assert next(iter(terms)) == "ce"
    assert all(term.shape == () and torch.isfinite(term) and not term.requires_grad for term in terms.values())
    loss.backward()
    for name, parameter in distiller.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@every_method_on_every_net
def test_keys_and_evaluation_output_are_those_of_the_bare_model(net: str, method: Method) -> None:
    distiller, x, y, further = wrapped(net, method)
    model = distiller.model
    bare = model_for(net, method)
    keys = list(bare.state_dict())
    distiller(x, y, **further)
    assert list(model.state_dict()) == keys
    bare.load_state_dict(model.state_dict())
    before = copy.deepcopy(distiller.state_dict())
    for module in (distiller, bare):
        module.eval()
    expected = logits_of(call(bare, x))
    assert torch.equal(logits_of(distiller(x)), expected)
    output = distiller(x, y)  # needs nothing of what the method needs in training
    assert torch.equal(output.logits, expected)
    assert output.loss == nn.functional.cross_entropy(expected, y)
    assert list(output.terms) == ["ce"]
    assert_equal(distiller.state_dict(), before)
    released = distiller.release()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in distiller.modules())
    assert torch.equal(logits_of(call(released, x)), expected)


@every_method_on_every_net
def test_repr_parses_back_to_the_same_loss(net: str, method: Method) -> None:
    again = parse_method(repr(method))
    assert repr(again) == repr(method)
    assert type(again) is type(method)
    assert again.needs == method.needs
    distiller, x, y, further = wrapped(net, method)
    other = wrap(net, again, x, copy.deepcopy(distiller).release())
    other.load_state_dict(distiller.state_dict())
    assert loss_under_seed(distiller, x, y, further) == loss_under_seed(other, x, y, further)


@every_method_on_every_net
def test_copies_give_the_same_loss(net: str, method: Method) -> None:
    distiller, x, y, further = wrapped(net, method)
    distiller(x, y, **further)
    copies = [copy.deepcopy(distiller), pickle.loads(pickle.dumps(distiller))]
    expected = loss_under_seed(distiller, x, y, further)
    for each in copies:
        assert loss_under_seed(each, x, y, further) == expected


@a_spanning_subset
def test_a_resumed_distiller_gives_the_same_next_loss(net: str, method: Method) -> None:
    distiller, x, y, further = wrapped(net, method)
    distiller(x, y, **further)
    state = pickle.loads(pickle.dumps(distiller.state_dict()))
    resumed = wrap(net, method, x)
    resumed.load_state_dict(state)
    assert loss_under_seed(resumed, x, y, further) == loss_under_seed(distiller, x, y, further)


@a_spanning_subset
def test_autocast_is_close_to_float32(net: str, method: Method) -> None:
    distiller, x, y, further = wrapped(net, method)
    rounded = copy.deepcopy(distiller)
    expected = loss_under_seed(distiller, x, y, further)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(3)
        output = rounded(x, y, **further)
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss.detach(), expected, rtol=0.03, atol=0.03)


@a_spanning_subset
def test_one_optimiser_step_moves_model_and_method(net: str, method: Method) -> None:
    distiller, x, y, further = wrapped(net, method)
    optimiser = torch.optim.SGD(distiller.parameters(), lr=0.1)
    before = {name: parameter.detach().clone() for name, parameter in distiller.named_parameters()}
    distiller(x, y, **further).loss.backward()
    optimiser.step()
    for name, parameter in distiller.named_parameters():
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize(("net", "method"), COMPILED)
def test_the_distiller_compiles_whole(net: str, method: Method) -> None:
    torch._dynamo.reset()
    distiller, x, y, further = wrapped(net, method)
    expected = copy.deepcopy(distiller)
    compiled = torch.compile(distiller, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        got, wanted = loss_under_seed(compiled, x, y, further), loss_under_seed(expected, x, y, further)
        torch.testing.assert_close(got, wanted)
    torch._dynamo.reset()


@every_method_on_every_net
def test_no_method_has_state_that_ddp_would_overwrite(net: str, method: Method) -> None:
    """Buffers of BatchNorm, in a branch or a peer, are each process's own; anything else would be a method's memory."""
    distiller, x, y, further = wrapped(net, method)
    distiller(x, y, **further)
    owners = [module for module in distiller.method.modules() if next(module.buffers(recurse=False), None) is not None]
    assert all(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in owners)


NEUTRAL = [
    ("LabelSmoothing(eps=0.0)", 1.0),
    ("Dropout(p=0.0)", 1.0),
    ("Dropout(p=0.0, dagger=True)", 2.0),
    ("SDDropout(p=0.0)", 1.0),
    ("SDDropout(weight=0.0)", 1.0),
    ("SDDropout(weight=0.0, one_sided=True)", 1.0),
    ("CSKD(weight=0.0)", 1.0),
    ("DDGSD(weight=0.0, mmd_weight=0.0)", 2.0),
    ("PSKD(samples=12, weight=0.0)", 1.0),
    ("BAKE(weight=0.0, partners=1)", 1.0),
    ("BAKE(omega=0.0, partners=1)", 1.0),
    ("DLB(weight=0.0)", 1.0),
]
"""Settings in which a method adds nothing, and how many times over it has cross-entropy then."""


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(("neutral", "times"), NEUTRAL)
def test_neutral_settings_are_cross_entropy(net: str, neutral: str, times: float) -> None:
    x, y = batch(net)
    model, method = NETS[net](), parse_method(neutral)
    same = {"views": [x], "pair": x, "index": torch.arange(6), "previous": (x, y)}  # the view is the image itself
    further = {name: same[name] for name in needed(method, x, y)}
    losses, gradients = [], []
    for each in (CrossEntropy(), method):
        distiller = wrap(net, each, x, copy.deepcopy(model))
        loss = distiller(x, y, **(further if each is method else {})).loss
        losses.append(loss)
        gradients.append(torch.autograd.grad(loss, list(distiller.model.parameters())))
    torch.testing.assert_close(losses[1], times * losses[0])
    torch.testing.assert_close(gradients[1], tuple(times * g for g in gradients[0]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("net", ["conv", "mlp", "mapping"])
def test_dml_without_its_term_is_half_of_each_networks_cross_entropy(net: str) -> None:
    x, y = batch(net)
    model = NETS[net]()
    mutual = methods.DML(weight=0.0, peer=copy.deepcopy(model))
    losses = [SelfDistiller(model, method, example_input=x)(x, y).loss for method in (CrossEntropy(), mutual)]
    torch.testing.assert_close(*losses)
    alone, together = (torch.autograd.grad(loss, list(model.parameters())) for loss in losses)
    torch.testing.assert_close(together, tuple(gradient / 2 for gradient in alone))


def test_byot_without_weight_is_cross_entropy_for_the_model() -> None:
    x, y = batch("conv")
    model = NETS["conv"]()
    losses = [wrap("conv", parse_method(text), x, model)(x, y).loss for text in ("CrossEntropy()", "BYOT(weight=0.0)")]
    torch.testing.assert_close(*losses)
    gradients = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
    torch.testing.assert_close(*gradients)


def test_r_drop_without_weight_is_cross_entropy_on_both_passes() -> None:
    x, y = batch("mlp")
    model = nn.Sequential(*mlp()[:3], nn.Dropout(1e-7), mlp()[3])
    losses = [SelfDistiller(model, parse_method(text))(x, y).loss for text in ("CrossEntropy()", "RDrop(weight=0.0)")]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("net", NETS)
def test_dropping_nothing_inside_is_cross_entropy(net: str) -> None:
    """With p = 0 the three copies are one: BatchNorm after them has the same statistics."""
    x, y = batch(net)
    model = NETS[net]()
    losses = [
        wrap(net, method, x, model)(x, y).loss for method in (CrossEntropy(), methods.SDDropout(p=0.0, at=INNER[net]))
    ]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize(
    ("method", "argument"),
    [("DDGSD()", "views="), ("CSKD()", "pair="), ("PSKD(samples=12)", "index="), ("CSKD() + DDGSD()", "views=")],
)
def test_a_missing_need_is_named(method: str, argument: str) -> None:
    x, y = batch("mlp")
    distiller = wrap("mlp", parse_method(method), x)
    with pytest.raises(ValueError, match=f"^{re.escape(repr(distiller.method))} .*{argument}"):
        distiller(x, y)


@pytest.mark.parametrize("method", ["PSKD(samples=12)", "SDDropout(warmup=0.5)"])
def test_a_method_that_follows_the_training_must_be_told_of_it(method: str) -> None:
    x, y = batch("mlp")
    distiller = SelfDistiller(mlp(), parse_method(method))
    with pytest.raises(ValueError, match=r"changes over the training; call distiller\.set_progress"):
        distiller(x, y, index=torch.arange(6))


@pytest.mark.parametrize("method", ["BYOT()", "DML()"])
def test_a_method_with_parameters_asks_for_an_example_input(method: str) -> None:
    with pytest.raises(ValueError, match="example_input="):
        SelfDistiller(NETS["conv"](), parse_method(method), stages=("block", "after"))


def test_every_argument_is_kept_under_its_name() -> None:
    for name in methods.__all__:
        kind = getattr(methods, name)
        given = {
            argument.name: 12
            for argument in inspect.signature(kind).parameters.values()
            if argument.default is argument.empty
        }
        method = kind(**given)
        for argument in inspect.signature(kind).parameters.values():
            assert getattr(method, argument.name) == given.get(argument.name, argument.default)


def assert_equal(state: dict[str, Any], other: dict[str, Any]) -> None:
    assert state.keys() == other.keys()
    for name, value in state.items():
        assert torch.equal(value, other[name]) if isinstance(value, Tensor) else value == other[name], name


def loss_under_seed(distiller: nn.Module, x: Any, y: Tensor, further: dict[str, Any]) -> Tensor:
    torch.manual_seed(3)
    return distiller(x, y, **further).loss.detach()


PAPER = ["LabelSmoothing()", "CSKD()", "DDGSD()", "BYOT()", "DML()"]


@pytest.mark.parametrize("base", PAPER)
def test_a_sum_is_its_parts_with_cross_entropy_counted_once(base: str) -> None:
    """Eq. 5, for every pair of Table 1: the base method's own terms, and SD-Dropout's beside them."""
    x, y = batch("conv")
    alone = wrap("conv", parse_method(base), x)
    model = copy.deepcopy(alone).release()
    together = wrap("conv", parse_method(base) + methods.SDDropout(weight=0.1), x, model)
    own = next(part for part in together.method.parts if repr(part) == base)
    own.load_state_dict(alone.method.state_dict())
    further = needed(alone.method, x, y)
    torch.manual_seed(3)
    expected = alone(x, y, **further)
    torch.manual_seed(3)
    output = together(x, y, **further)
    for name, term in expected.terms.items():
        assert torch.equal(output.terms[name], term), name
    assert set(output.terms) == {*expected.terms, "sdd"}
    torch.testing.assert_close(output.loss, expected.loss + 0.1 * 9 * output.terms["sdd"])


@pytest.mark.parametrize("order", [0, 1])
def test_a_sum_of_three(order: int) -> None:
    parts = [methods.SDDropout(), methods.LabelSmoothing(), methods.BYOT()]
    first, *rest = parts[order:] + parts[:order]
    total = first + rest[0] + rest[1]
    assert repr(total) == "BYOT() + LabelSmoothing() + SDDropout()"
    x, y = batch("conv")
    assert list(wrap("conv", total, x)(x, y).terms) == ["ce", "branch_ce", "byot", "hint", "sdd"]
