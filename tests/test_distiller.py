"""The distiller: one pass, the terms and their sum, and a model that stays the user's."""

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfdistill import (
    CSKD,
    DDGSD,
    CrossEntropy,
    Dropout,
    LabelSmoothing,
    Method,
    Needs,
    Outputs,
    SDDropout,
    SelfDistiller,
    Step,
    StepOutput,
    Term,
)
from tests.nets import CLASSES, HEADS, NETS, ConvNet, batch, mlp


class Views(Method):
    """Reads two views; the term is how far their features are apart."""

    needs = Needs(views=2)

    def terms(self, step: Step) -> dict[str, Term]:
        a, b = step.outputs
        return {"views": Term((a.features - b.features).square().mean(), 2.0)}


class Partner(Method):
    """Reads a partner of the same class."""

    needs = Needs(pair="any")

    def terms(self, step: Step) -> dict[str, Term]:
        assert step.pair is not None
        return {"pair": Term((step.outputs[0].logits - step.pair.logits).square().mean())}


class Position(Method):
    needs = Needs(index=True)

    def terms(self, step: Step) -> dict[str, Term]:
        assert step.batch.index is not None
        return {"index": Term(step.batch.index.float().mean())}


class Stages(Method):
    needs = Needs(stages=True)

    def terms(self, step: Step) -> dict[str, Term]:
        return {"stages": Term(sum(stage.square().mean() for stage in step.outputs[0].stages))}  # type: ignore[arg-type]


class Branch(Method):
    """Sizes a classifier of its own by the probe."""

    def build(self, probe: Outputs, model: nn.Module) -> None:
        self.classifier = nn.Linear(probe.features.shape[1], probe.logits.shape[1])

    def terms(self, step: Step) -> dict[str, Term]:
        return {"branch": Term(step.criterion(self.classifier(step.outputs[0].features), step.batch.y), 0.5)}


class Again(Method):
    """Passes x through the net once more."""

    def terms(self, step: Step) -> dict[str, Term]:
        return {"again": Term(step.net(step.batch.x).logits.square().mean(), step.progress)}


class Seen(nn.Module):
    """Counts its calls, and keeps what it was called with."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.inputs: list[Tensor] = []
        self.trained: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.inputs.append(x.detach())  # a graph tensor could not be copied with the model
        self.trained.append((self.training, torch.is_grad_enabled()))
        return self.inner(x)


def watched() -> tuple[ConvNet, Seen, Seen]:
    """Return a ConvNet whose stem and head count their calls."""
    model = ConvNet()
    stem, head = Seen(model.stem), Seen(model.fc)
    model.stem, model.fc = stem, head  # type: ignore[assignment]
    return model, stem, head


def hooks_on(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def everything(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


def unchanged(model: nn.Module, before: dict[str, Tensor]) -> bool:
    now = model.state_dict()
    return list(now) == list(before) and all(torch.equal(value, before[name]) for name, value in now.items())


# Training


def test_two_lines() -> None:
    model, (x, y) = ConvNet(), batch("conv")
    distiller = SelfDistiller(model, SDDropout())
    loss, logits, terms = distiller(x, y)
    loss.backward()
    assert logits.shape == (6, CLASSES)
    assert list(terms) == ["ce", "sdd"]
    assert not any(term.requires_grad for term in terms.values())
    assert all(parameter.grad is not None for parameter in model.parameters())
    torch.testing.assert_close(terms["ce"], F.cross_entropy(logits, y))


def test_the_loss_goes_down() -> None:
    model, (x, y) = mlp(), batch("mlp", 20)
    distiller = SelfDistiller(model, LabelSmoothing() + SDDropout(weight=0.1))
    optimiser = torch.optim.SGD(distiller.parameters(), lr=0.1)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = distiller(x, y).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


def test_the_logits_are_those_of_the_model() -> None:
    model, (x, y) = mlp(), batch("mlp")
    torch.testing.assert_close(SelfDistiller(model, SDDropout())(x, y).logits, model(x), rtol=0, atol=0)


def test_the_loss_is_the_weighted_sum_of_the_terms() -> None:
    x, y = batch("mlp")
    loss, _, terms = SelfDistiller(mlp(), Views() + SDDropout(weight=0.2, temperature=2.0))(x, y, views=(x + 1,))
    torch.testing.assert_close(loss.detach(), terms["ce"] + 2.0 * terms["views"] + 0.2 * 4 * terms["sdd"])


def test_without_labels_it_is_the_model() -> None:
    for training in (True, False):
        x, _ = batch("mapping")
        model = NETS["mapping"]()
        distiller = SelfDistiller(model, SDDropout(), head="classifier").train(training)
        output = distiller(x)
        assert type(output) is type(model(**x))
        assert torch.equal(output["logits"], model(**x)["logits"])


@pytest.mark.parametrize("method", [SDDropout(), Dropout(), LabelSmoothing(), Views(), Partner()], ids=repr)
def test_in_evaluation_mode_it_is_the_clean_cross_entropy_and_changes_nothing(method: Method) -> None:
    model, (x, y) = ConvNet(), batch("conv")
    distiller = SelfDistiller(model, method).eval()
    before, random_state = everything(model), torch.get_rng_state()
    output = distiller(x, y)
    assert isinstance(output, StepOutput)
    torch.testing.assert_close(output.logits, model(x), rtol=0, atol=0)
    torch.testing.assert_close(output.loss, F.cross_entropy(model(x), y))
    assert list(output.terms) == ["ce"]
    torch.testing.assert_close(output.terms["ce"], output.loss.detach())
    assert unchanged(model, before)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert hooks_on(model) == 0  # nothing was needed, so nothing was probed


def test_labels_may_be_probabilities() -> None:
    x, y = batch("mlp")
    model = mlp()
    hard, soft = (SelfDistiller(model, CrossEntropy())(x, labels).loss for labels in (y, F.one_hot(y, CLASSES).float()))
    torch.testing.assert_close(hard, soft)


def test_progress_reaches_the_method() -> None:
    distiller, (x, y) = SelfDistiller(mlp(), Again()), batch("mlp")
    assert distiller.progress.shape == ()
    loss, _, terms = distiller(x, y)
    assert loss.item() == terms["ce"].item()
    distiller.progress.fill_(0.5)
    loss, logits, terms = distiller(x, y)
    torch.testing.assert_close(terms["again"], logits.square().mean().detach())
    torch.testing.assert_close(loss.detach(), terms["ce"] + 0.5 * terms["again"])


def test_progress_is_no_part_of_the_state() -> None:
    assert all(name.startswith("model.") for name in SelfDistiller(mlp(), SDDropout()).state_dict())


# Passes


def test_one_pass_of_the_backbone_and_two_head_calls() -> None:
    model, stem, head = watched()
    x, y = batch("conv")
    distiller = SelfDistiller(model, SDDropout(), head="fc", example_input=x)
    stem.inputs.clear(), head.inputs.clear()
    distiller(x, y)
    assert [len(inputs) for inputs in stem.inputs] == [6]
    assert [len(inputs) for inputs in head.inputs] == [6, 12]
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("method", [CrossEntropy(), LabelSmoothing()], ids=repr)
def test_a_method_without_dropout_calls_the_head_once(method: Method) -> None:
    model, stem, head = watched()
    x, y = batch("conv")
    distiller = SelfDistiller(model, method, head="fc", example_input=x)
    stem.inputs.clear(), head.inputs.clear()
    distiller(x, y)
    assert [len(inputs) for inputs in stem.inputs + head.inputs] == [6, 6]


def test_views_pass_once_concatenated() -> None:
    model, stem, _ = watched()
    x, y = batch("conv")
    other = torch.randn_like(x)
    distiller = SelfDistiller(model, Views(), example_input=x)
    stem.inputs.clear()
    terms = distiller(x, y, views=(other,)).terms
    assert len(stem.inputs) == 1
    assert torch.equal(stem.inputs[0], torch.cat([x, other]))
    assert model.norm.num_batches_tracked == 1
    features = copy.deepcopy(model).features(torch.cat([x, other]))
    torch.testing.assert_close(terms["views"], (features[:6] - features[6:]).square().mean().detach())


def test_views_of_unequal_shape_pass_separately() -> None:
    model, stem, _ = watched()
    x, y = batch("conv")
    small = torch.randn(6, 3, 4, 4)
    distiller = SelfDistiller(model, Views(), example_input=x)
    stem.inputs.clear()
    terms = distiller(x, y, views=(small,)).terms
    assert [inputs.shape[-1] for inputs in stem.inputs] == [8, 4]
    assert model.norm.num_batches_tracked == 2
    clone = copy.deepcopy(model)
    expected = (clone.features(x) - clone.features(small)).square().mean().detach()
    torch.testing.assert_close(terms["views"], expected)


def test_views_of_mappings() -> None:
    (x, y), (other, _) = batch("mapping"), batch("mapping")
    model = NETS["mapping"]()
    terms = SelfDistiller(model, Views())(x, y, views=(other,)).terms
    features = [model.pooler(model(**inputs)["hidden_states"]).tanh() for inputs in (x, other)]
    torch.testing.assert_close(terms["views"], (features[0] - features[1]).square().mean().detach())


def test_labels_see_the_first_view_alone() -> None:
    x, y = batch("mlp")
    model = mlp()
    _, logits, terms = SelfDistiller(model, Views())(x, y, views=(torch.randn_like(x),))
    torch.testing.assert_close(logits, model(x))
    torch.testing.assert_close(terms["ce"], F.cross_entropy(model(x), y).detach())


def test_views_and_dropout_inside_together() -> None:
    """x and its view pass once, three times each; the two masked passes are those of x."""
    (x, y), model = batch("mlp"), mlp()
    other = torch.randn_like(x)
    output = SelfDistiller(model, Views() + SDDropout(p=0.0, at="1"))(x, y, views=(other,))
    torch.testing.assert_close(output.logits, model(x))
    body = model[:3]
    torch.testing.assert_close(output.terms["views"], (body(x) - body(other)).square().mean().detach())
    assert output.terms["sdd"].item() == pytest.approx(0, abs=1e-9)


def test_the_pair_passes_in_train_mode_without_gradient() -> None:
    model, stem, _ = watched()
    x, y = batch("conv")
    partner = torch.randn_like(x)
    distiller = SelfDistiller(model, Partner(), example_input=x)
    stem.inputs.clear(), stem.trained.clear()
    expected = copy.deepcopy(model)(partner).detach()  # with the partner's own batch statistics
    loss, logits, terms = distiller(x, y, pair=partner)
    assert stem.trained == [(True, True), (True, False)]
    assert torch.equal(stem.inputs[1], partner)
    assert model.norm.num_batches_tracked == 2
    torch.testing.assert_close(terms["pair"], (logits - expected).square().mean().detach())
    gradient = torch.autograd.grad(loss, model.fc.inner.bias, retain_graph=True)[0]  # type: ignore[union-attr]
    by_hand = torch.autograd.grad(F.cross_entropy(logits, y) + (logits - expected).square().mean(), logits)[0].sum(0)
    torch.testing.assert_close(gradient, by_hand)


def test_a_pair_that_nobody_reads_is_not_passed() -> None:
    model, stem, _ = watched()
    x, y = batch("conv")
    distiller = SelfDistiller(model, CrossEntropy(), example_input=x)
    stem.inputs.clear()
    distiller(x, y, pair=x)
    assert len(stem.inputs) == 1


def test_stages_are_read() -> None:
    model, (x, y) = ConvNet(), batch("conv")
    terms = SelfDistiller(model, Stages(), stages=["stem", "block"])(x, y).terms
    clone = copy.deepcopy(model).train()
    stem = clone.stem(x)
    expected = stem.square().mean() + clone.block(clone.norm(stem).relu()).square().mean()
    torch.testing.assert_close(terms["stages"], expected.detach())


def test_a_method_with_parameters_is_sized_by_the_example() -> None:
    x, y = batch("conv")
    method = Branch()
    distiller = SelfDistiller(ConvNet(), method, example_input=x)
    assert method.classifier.weight.shape == (CLASSES, 16)
    distiller(x, y).loss.backward()
    assert method.classifier.weight.grad is not None
    assert "method.classifier.weight" in distiller.state_dict()


# Needs that are not met


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Views(), r"Views\(\) reads 2 views of each image; pass views=, a tuple of 1 further augmented batch"),
        (Partner(), r"Partner\(\) needs pair=, another image of each image's class"),
        (Position(), r"Position\(\) needs index=, the images' positions"),
        (Position() + SDDropout(), r"Position\(\) \+ SDDropout\(\) needs index="),
    ],
)
def test_a_missing_need_is_named(method: Method, message: str) -> None:
    x, y = batch("mlp")
    with pytest.raises(ValueError, match=message):
        SelfDistiller(mlp(), method)(x, y)


def test_one_view_has_one_image_for_each() -> None:
    (x, y), method = batch("mlp"), CSKD() + DDGSD()
    distiller = SelfDistiller(mlp(), method)
    with pytest.raises(ValueError, match=r"views\[0\] has 5 images and x has 6; it must have one for each"):
        distiller(x, y, views=[x[:5]], pair=x)
    with pytest.raises(ValueError, match="pair has 7 images and x has 6"):
        distiller(x, y, views=[x], pair=torch.cat([x, x[:1]]))


def test_views_that_must_pass_together_are_of_one_shape() -> None:
    x, y = batch("conv")
    with pytest.raises(ValueError, match=r"DDGSD\(\) passes x and its views together.*resize it to x's, \(3, 8, 8\)"):
        SelfDistiller(ConvNet(), DDGSD())(x, y, views=[x[:, :, :6, :6]])


def test_a_batch_too_small_for_batchnorm_is_refused_in_one_line() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5))
    x, y = batch("mlp", 1)
    with pytest.raises(ValueError, match="a batch of 1 is too small: a BatchNorm would see one value per channel; use"):
        SelfDistiller(model, SDDropout())(x, y)


def test_index_reaches_the_method() -> None:
    x, y = batch("mlp")
    terms = SelfDistiller(mlp(), Position())(x, y, index=torch.arange(6)).terms
    assert terms["index"].item() == 2.5


def test_missing_stages_and_missing_example() -> None:
    model = mlp()
    with pytest.raises(ValueError, match=r"no stages were found in this Sequential; pass stages="):
        SelfDistiller(model, Stages())
    with pytest.raises(ValueError, match=r"Branch\(\) has parameters of its own to size; pass example_input="):
        SelfDistiller(model, Branch(), head="3")
    with pytest.raises(ValueError, match=r"SDDropout\(\) has parameters of its own|\+ .*pass example_input="):
        SelfDistiller(model, Branch() + SDDropout())
    assert hooks_on(model) == 0


# Hooks


def test_hooks_are_armed_in_the_distillers_own_pass_only() -> None:
    model, (x, y) = ConvNet(), batch("conv")
    distiller = SelfDistiller(model, Stages() + SDDropout(at="block"), stages=["block"])
    distiller(x, y)
    tap = distiller._tap
    assert tap is not None
    assert model(x).shape == (6, CLASSES)  # not 18: the dropout inside is off
    assert distiller(x).shape == (6, CLASSES)
    assert tap.feature_hook.features is None
    assert tap.stage_hooks[0].output is None
    copy.deepcopy(model)  # an EMA copy: a kept graph tensor could not be copied


def test_an_exception_in_the_pass_leaves_nothing_behind() -> None:
    model, (x, y) = mlp(), batch("mlp")
    distiller = SelfDistiller(model, SDDropout(), example_input=x)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        distiller(x[..., :4], y)
    tap = distiller._tap
    assert tap is not None
    assert tap.feature_hook.features is None
    assert not tap.feature_hook.armed
    assert torch.isfinite(distiller(x, y).loss)


def test_two_distillers_on_one_model() -> None:
    model, (x, y) = mlp(), batch("mlp")
    first, second = (SelfDistiller(model, SDDropout(weight=weight), example_input=x) for weight in (0.0, 1.0))
    plain = F.cross_entropy(model(x), y)
    torch.testing.assert_close(first(x, y).loss, plain)
    assert second(x, y).loss > plain
    second.release()
    torch.testing.assert_close(first(x, y).loss, plain)


def test_release() -> None:
    model, (x, y) = ConvNet(), batch("conv")
    keys, before = list(model.state_dict()), model.eval()(x)
    distiller = SelfDistiller(model, Stages() + SDDropout(at="block"), stages=["stem"], example_input=x)
    assert hooks_on(model) == 3
    assert distiller.release() is model
    assert hooks_on(model) == 0
    assert list(model.state_dict()) == keys
    assert torch.equal(model.eval()(x), before)
    with pytest.raises(RuntimeError, match="this distiller was released; wrap the model again"):
        distiller.train()(x, y)
    assert distiller.release() is model
    assert torch.isfinite(SelfDistiller(model.train(), SDDropout())(x, y).loss)


def test_release_before_the_first_pass() -> None:
    distiller, (x, y) = SelfDistiller(mlp(), SDDropout()), batch("mlp")
    distiller.release()
    with pytest.raises(RuntimeError, match="this distiller was released"):
        distiller(x, y)
    assert hooks_on(distiller.model) == 0


@pytest.mark.parametrize("example", [False, True])
def test_nothing_is_left_on_a_model_that_was_refused(example: bool) -> None:
    model, (x, _) = ConvNet(), batch("conv")
    refused: list[dict[str, Any]] = [{"head": "fcc"}, {"head": "fc", "stages": ["fcc"]}]
    refused += [{"head": "stem"}, {"stages": ["fcc"]}] if example else []
    for arguments in refused:
        with pytest.raises(ValueError, match=r"head=|stages="):
            SelfDistiller(model, CrossEntropy(), **arguments, example_input=x if example else None)
    with pytest.raises((ValueError, RuntimeError), match="at="):
        SelfDistiller(model, SDDropout(at="block.conv1" if example else "nowhere"), head="fc", example_input=x)
    assert hooks_on(model) == 0


# The head


@pytest.mark.parametrize("given", ["name", "module", "found"])
@pytest.mark.parametrize("net", NETS)
def test_head_by_name_by_module_or_found(net: str, given: str) -> None:
    model, (x, y) = NETS[net](), batch(net)
    head = {"name": HEADS[net], "module": model.get_submodule(HEADS[net]), "found": None}[given]
    distiller = SelfDistiller(model, SDDropout(), head=head)
    assert distiller.head == (None if given == "found" else HEADS[net])
    assert torch.isfinite(distiller(x, y).loss)
    assert distiller.head == HEADS[net]


def test_a_wrong_head() -> None:
    model, (x, y) = mlp(), batch("mlp")
    with pytest.raises(ValueError, match="head='7' is not a submodule of this Sequential; its children are: 0, 1, 2"):
        SelfDistiller(model, SDDropout(), head="7")
    with pytest.raises(ValueError, match="head= is a Linear that is not a module of this Sequential"):
        SelfDistiller(model, SDDropout(), head=nn.Linear(24, CLASSES))
    distiller = SelfDistiller(model, SDDropout(), head="1")
    for _ in range(2):
        with pytest.raises(ValueError, match="the output of head='1' is not the model's logits; pass head="):
            distiller(x, y)


def test_a_stack_as_head() -> None:
    """Table 13: the features are what enters the first layer of the stack."""
    stack = nn.Sequential(nn.Linear(24, 9), nn.ReLU(), nn.Linear(9, CLASSES))
    model, (x, y) = nn.Sequential(nn.Flatten(), nn.Linear(192, 24), nn.ReLU(), stack), batch("mlp")
    calls = []
    stack.register_forward_pre_hook(lambda _m, args: calls.append(args[0].shape))
    distiller = SelfDistiller(model, SDDropout(), head=stack, example_input=x)
    calls.clear()
    distiller(x, y)
    assert distiller.head == "3"
    assert calls == [(6, 24), (12, 24)]


def test_the_first_pass_leaves_the_random_state_to_the_method() -> None:
    """The probe draws nothing: a distiller that has probed and one that has not give the same loss."""
    x, y = batch("conv")
    model = ConvNet()
    losses = []
    for example in (None, x):
        distiller = SelfDistiller(copy.deepcopy(model), SDDropout(), example_input=example)
        torch.manual_seed(1)
        losses.append(distiller(x, y).loss.item())
    assert losses[0] == losses[1]


def test_the_example_changes_nothing() -> None:
    model, (x, _) = ConvNet(), batch("conv")
    model.norm.eval()
    before, random_state, modes = everything(model), torch.get_rng_state(), [m.training for m in model.modules()]
    SelfDistiller(model, Dropout() + SDDropout(at="block"), example_input=x)
    assert unchanged(model, before)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [m.training for m in model.modules()] == modes


# Outputs and inputs of other kinds


class Named(NamedTuple):
    logits: Tensor
    auxiliary: Tensor


@pytest.mark.parametrize(
    "wrap",
    [lambda z: (z, 0 * z), lambda z: [z], lambda z: Named(z, 0 * z), lambda z: {"loss": None, "logits": z}],
    ids=["tuple", "list", "NamedTuple", "mapping"],
)
def test_outputs_of_any_kind(wrap: Callable[[Tensor], Any]) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = inner

        def forward(self, x: Tensor) -> Any:
            return wrap(self.net(x))

    inner, (x, y) = mlp(), batch("mlp")
    losses = []
    for model in (inner, Wrapped()):
        torch.manual_seed(1)
        losses.append(SelfDistiller(model, SDDropout())(x, y).loss)
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)


def test_a_mapping_may_hold_more_than_tensors() -> None:
    class Flagged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = NETS["mapping"]()

        def forward(self, pixel_values: Tensor, brightness: Tensor, return_dict: bool) -> Any:
            output = self.net(pixel_values, brightness)
            return output if return_dict else (output["logits"],)

    x, y = batch("mapping")
    for flag in (True, False):
        inputs = {**x, "return_dict": flag}
        assert torch.isfinite(SelfDistiller(Flagged(), Views() + SDDropout())(inputs, y, views=(inputs,)).loss)


def test_own_dropout_before_the_head_warns_once() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 24), nn.Dropout(0.2), nn.Linear(24, CLASSES))
    x, y = batch("mlp")
    distiller = SelfDistiller(model, LabelSmoothing() + SDDropout())
    with pytest.warns(
        UserWarning, match=r"drops out its features itself, in '2', before LabelSmoothing\(\) \+ SDDropout"
    ):
        distiller(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distiller(x, y)
        for quiet in (CrossEntropy(), SDDropout(at="1")):
            SelfDistiller(model, quiet)(x, y)
        model[2].p = 0.0
        SelfDistiller(model, SDDropout())(x, y)


# Copies


@pytest.mark.parametrize("probed", [False, True])
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda kept: pickle.loads(pickle.dumps(kept))], ids=["copy", "pickle"]
)
def test_copies_of_a_distiller_and_of_a_model(duplicate: Callable[[Any], Any], probed: bool) -> None:
    x, y = batch("conv")
    distiller = SelfDistiller(ConvNet(), SDDropout(), head="fc")
    if probed:
        distiller(x, y)
    copied, student = duplicate(distiller), duplicate(distiller.model)
    losses = []
    for each in (distiller, copied, SelfDistiller(student, SDDropout())):
        torch.manual_seed(1)
        losses.append(each(x, y).loss)
    assert losses[0] == losses[1] == losses[2]
    losses[1].backward()
    assert all(parameter.grad is None for parameter in distiller.parameters())
    copied.release()
    assert hooks_on(copied.model) == 0
    assert hooks_on(distiller.model) == 1


def test_state_dicts_are_those_of_the_model_and_load_without_unpickling() -> None:
    model, (x, y) = ConvNet(), batch("conv")
    distiller = SelfDistiller(model, SDDropout(), example_input=x)
    distiller(x, y)
    for module in (distiller, distiller.model):
        file = io.BytesIO()
        torch.save(module.state_dict(), file)
        file.seek(0)
        module.load_state_dict(torch.load(file, weights_only=True))
    assert list(model.state_dict()) == list(ConvNet().state_dict())
    ConvNet().load_state_dict(model.state_dict())


def test_bfloat16_autocast_is_close_to_float32() -> None:
    model, (x, y) = ConvNet(), batch("conv")
    method = LabelSmoothing() + SDDropout(p=0.5)
    results = []
    for enabled in (False, True):
        distiller = SelfDistiller(copy.deepcopy(model), method)
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            output = distiller(x, y)
        output.loss.backward()
        assert output.loss.dtype == output.terms["sdd"].dtype == torch.float32
        results.append((output.loss, distiller.model.fc.weight.grad))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0.02, atol=0.02)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0.1, atol=0.03)
