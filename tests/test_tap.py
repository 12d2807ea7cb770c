"""Finding the head, reading the features, dropping out inside, and leaving the model as it was."""

import copy
import pickle
from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfdistill.head import check_dropout, check_head, dropout_before, evaluating, find_head
from selfdistill.method import DropoutAt
from selfdistill.network import logits_of
from selfdistill.tap import Tap
from tests.nets import CLASSES, HEADS, INNER, NETS, ConvNet, HubOutput, batch, mlp

ASKS_FOR_HEAD = r"pass head=, the dotted name \(or the module\) of the classifier layer"


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return (self.a(x) + self.b(x)) / 2


class PooledAfter(nn.Module):
    """SqueezeNet: a 1 x 1 convolution as classifier, averaged afterwards, or with ``pool=False`` given out as a map."""

    def __init__(self, pool: bool = True) -> None:
        super().__init__()
        self.classifier, self.pool = nn.Conv2d(3, 4, 1), pool

    def forward(self, x: Tensor) -> Tensor:
        maps = self.classifier(x)
        return maps.mean((2, 3)) if self.pool else maps


class FullyConvolutional(nn.Module):
    """Pools before a 1 x 1 convolution, then flattens its map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).mean((2, 3), keepdim=True)).flatten(1)


class Nested(nn.Module):
    """The head is inside a module whose output is the logits as well."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 6)
        self.top = nn.Sequential(OrderedDict(norm=nn.LayerNorm(6), cls=nn.Linear(6, 3), same=nn.Identity()))

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.body(x).relu())


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Bilinear(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x, x)


class Moody(nn.Module):
    """Has everything that a probe could disturb: BatchNorm, dropout, mixed modes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 6))
        self.frozen = nn.BatchNorm1d(6).eval()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.frozen(self.body(x)))


# What a model gives


class Answer(NamedTuple):
    logits: Tensor
    extra: int = 0


class Attribute:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


LOGITS = torch.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS, LOGITS + 1),
        [LOGITS],
        Answer(LOGITS),
        HubOutput(loss=LOGITS + 1, logits=LOGITS),
        Attribute(LOGITS),
    ],
    ids=lambda output: type(output).__name__,
)
def test_logits_of(output: Any) -> None:
    assert logits_of(output) is LOGITS


@pytest.mark.parametrize("output", [None, (), ("a",), {"scores": LOGITS}, {"logits": None}, 3])
def test_logits_of_something_else(output: Any) -> None:
    with pytest.raises(ValueError, match="the model's output has no logits: it is a"):
        logits_of(output)


# The head


@pytest.mark.parametrize("net", NETS)
def test_find_head(net: str) -> None:
    model, (x, _) = NETS[net](), batch(net)
    assert find_head(model, x) == HEADS[net]
    tap = Tap(model, HEADS[net])
    (outputs,) = tap.outputs(model, x)
    torch.testing.assert_close(outputs.head(outputs.features), outputs.logits)


def test_the_innermost_head_is_found() -> None:
    assert find_head(Nested(), torch.randn(2, 8)) == "top.cls"


def test_a_module_that_is_its_own_head() -> None:
    assert find_head(nn.Linear(8, 3), torch.randn(2, 8)) == ""


def test_a_head_that_gives_a_1_by_1_map() -> None:
    model, x = FullyConvolutional(), torch.randn(2, 3, 8, 8)
    assert find_head(model, x) == "head"
    tap = Tap(model, "head")
    outputs = check_head(tap, model, x)
    assert outputs.logits.shape == outputs.head(outputs.features).shape == (2, 4)


def test_two_heads() -> None:
    with pytest.raises(ValueError, match=r"no module's output is the logits \(two heads.*" + ASKS_FOR_HEAD):
        find_head(TwoHeads(), torch.randn(2, 8))


def test_pooled_after_the_classifier() -> None:
    with pytest.raises(ValueError, match=r"no module's output is the logits.*" + ASKS_FOR_HEAD):
        find_head(PooledAfter(), torch.randn(2, 3, 8, 8))
    with pytest.raises(
        ValueError, match=r"pools after its classifier: 'classifier' reads \(2, 3, 8, 8\).*" + ASKS_FOR_HEAD
    ):
        find_head(PooledAfter(pool=False), torch.randn(2, 3, 8, 8))


def test_a_head_of_two_inputs() -> None:
    with pytest.raises(ValueError, match=r"the head 'head' does not take one tensor of features.*" + ASKS_FOR_HEAD):
        find_head(Bilinear(), torch.randn(2, 8))


def test_check_head_refuses_another_module() -> None:
    model, (x, _) = mlp(), batch("mlp")
    tap = Tap(model, "1")
    with pytest.raises(ValueError, match=r"the output of head='1' is not the model's logits; " + ASKS_FOR_HEAD):
        check_head(tap, model, x)


def test_check_head_takes_a_stack() -> None:
    model = Nested()
    outputs = check_head(Tap(model, "top"), model, torch.randn(2, 8))
    assert outputs.features.shape == (2, 6)


def test_unknown_names() -> None:
    for argument, build in {
        "head": lambda: Tap(ConvNet(), "fcc"),
        "stages": lambda: Tap(ConvNet(), "fc", ("fcc",)),
        "at": lambda: Tap(ConvNet(), "fc", dropout_at=DropoutAt("fcc", 0.5)),
    }.items():
        message = f"{argument}='fcc' is not a submodule of this ConvNet; its children are: stem, norm, block, after, fc"
        with pytest.raises(ValueError, match=message):
            build()
    with pytest.raises(ValueError, match="its children are: none"):
        Tap(nn.Linear(2, 2), "a.b")


# The probes leave no trace


@pytest.mark.parametrize("probe", ["find_head", "check_head", "check_dropout", "dropout_before"])
def test_a_probe_changes_nothing(probe: str) -> None:
    model, x = Moody(), torch.randn(4, 8)
    model.body[0].eval()
    tap = Tap(model, "head", dropout_at=DropoutAt("body.0", 0.5))
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    random_state = torch.get_rng_state()
    run = {
        "find_head": lambda: find_head(model, x),
        "check_head": lambda: check_head(tap, model, x),
        "check_dropout": lambda: check_dropout(tap, model, x),
        "dropout_before": lambda: dropout_before(model, "head", x),
    }
    run[probe]()
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in model.modules()] == modes
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_probe_that_fails_leaves_no_hooks_and_the_modes() -> None:
    model = nn.Sequential(nn.Linear(8, 3), nn.Dropout())
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        find_head(model, torch.randn(2, 7))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(m.training for m in model.modules())
    assert torch.is_grad_enabled()


def test_evaluating_switches_autocast_and_gradients_off() -> None:
    model = mlp()
    with torch.autocast("cpu", dtype=torch.bfloat16), evaluating(model):
        output = model(torch.randn(2, 3, 8, 8))
    assert output.dtype == torch.float32
    assert not output.requires_grad


# The pass


@pytest.mark.parametrize("net", NETS)
def test_one_pass_reads_features_and_keeps_nothing(net: str) -> None:
    model, (x, _) = NETS[net](), batch(net)
    tap = Tap(model, HEADS[net], (INNER[net],))
    inner = []
    model.get_submodule(INNER[net]).register_forward_hook(lambda _m, _a, output: inner.append(output))
    (outputs,) = tap.outputs(model, x)
    assert outputs.stages[0] is inner[0]
    assert len(inner) == 1
    assert outputs.features.requires_grad
    assert tap.feature_hook.features is None
    assert tap.stage_hooks[0].output is None
    logits_of(model(**x) if isinstance(x, dict) else model(x))  # the user's own pass
    assert tap.feature_hook.features is None
    assert tap.stage_hooks[0].output is None


def test_an_exception_in_the_pass_disarms_and_empties_the_hooks() -> None:
    model, (x, _) = mlp(), batch("mlp")
    tap = Tap(model, "3", ("1",), DropoutAt("1", 0.5))
    handle = model.register_forward_hook(_fail)
    with pytest.raises(KeyError, match="on purpose"):
        tap.outputs(model, x, drop=True)
    handle.remove()
    hooks = [tap.feature_hook, *tap.stage_hooks, tap.dropout_hook]
    assert not any(hook.armed for hook in hooks if hook is not None)
    assert tap.feature_hook.features is None
    assert tap.stage_hooks[0].output is None
    assert model(x).shape == (6, CLASSES)


def _fail(module: nn.Module, args: object, output: object) -> None:
    raise KeyError("on purpose")


def test_a_head_that_is_not_called() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    model = Skips()
    with pytest.raises(RuntimeError, match="the head 'unused' gave no features in this pass"):
        Tap(model, "unused").outputs(model, torch.randn(2, 8))
    with pytest.raises(RuntimeError, match="a stage gave no output in this pass; check stages="):
        Tap(model, "used", ("unused",)).outputs(model, torch.randn(2, 8))


def test_features_survive_a_head_that_works_in_place() -> None:
    """EfficientNet's ``classifier`` starts with an in-place dropout: f(x) is what came in, not what it became."""
    model = nn.Sequential(nn.Linear(8, 40), nn.Sequential(nn.Dropout(0.5, inplace=True), nn.Linear(40, 3)))
    tap, x = Tap(model, "1"), torch.randn(4, 8)
    (outputs,) = tap.outputs(model, x)
    torch.testing.assert_close(outputs.features, model[0](x))
    outputs.head(outputs.features).sum().backward()


def test_close_takes_the_hooks_off() -> None:
    model = ConvNet()
    tap = Tap(model, "fc", ("block",), DropoutAt("block", 0.5))
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()) == 3
    tap.close()
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()) == 0


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_model_with_hooks_is_copied_whole(duplicate: Any) -> None:
    model, (x, _) = ConvNet().eval(), batch("conv")
    tap = Tap(model, "fc", ("block",), DropoutAt("block", 0.5))
    model(x)
    copied = duplicate(model)
    torch.testing.assert_close(copied(x), model(x), rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="gave no features"):
        tap.outputs(copied, x)  # the copy's hooks are its own: nothing is cross-wired


# Dropout at an inner module


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("p", [0.0, 0.4])
def test_dropout_inside_gives_clean_u_and_v(net: str, p: float) -> None:
    model, (x, _) = NETS[net]().eval(), batch(net)
    tap = Tap(model, HEADS[net], (INNER[net],), DropoutAt(INNER[net], p))
    (clean,) = tap.outputs(model, x)
    parts = tap.outputs(model, x, drop=True)
    assert len(parts) == 3
    torch.testing.assert_close(parts[0].logits, clean.logits)
    torch.testing.assert_close(parts[0].features, clean.features)
    for part in parts:
        assert part.logits.shape == clean.logits.shape
        torch.testing.assert_close(part.head(part.features), part.logits)
        torch.testing.assert_close(part.stages[0], clean.stages[0])
    same = [torch.allclose(a.logits, b.logits, atol=1e-6) for a, b in ((parts[0], parts[1]), (parts[1], parts[2]))]
    assert same == [p == 0] * 2


@pytest.mark.parametrize("channels", [False, True])
def test_dropout_inside_drops_values_or_channels(channels: bool) -> None:
    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(8 * 5 * 5, 3))
    tap = Tap(model, "2", ("1",), DropoutAt("0", 0.5, channels=channels))
    clean, u, v = (part.stages[0].reshape(4, 8, 25) for part in tap.outputs(model, torch.ones(4, 8, 5, 5), drop=True))
    assert (clean == 1).all()
    for mask in (u, v):
        assert set(mask.unique().tolist()) == {0.0, 2.0}  # survivors are scaled by 1 / (1 - p)
        whole_channels = (mask == mask[..., :1]).all()
        assert whole_channels == channels
    assert (u != v).any()


def test_stages_before_at_and_after_it_are_cut_to_the_clean_batch() -> None:
    model, x = ConvNet(), torch.randn(6, 3, 8, 8)
    model.eval()
    tap = Tap(model, "fc", ("stem", "block", "after"), DropoutAt("block", 0.5))
    (clean,) = tap.outputs(model, x)
    parts = tap.outputs(model, x, drop=True)
    for part in parts:
        assert [stage.shape for stage in part.stages] == [stage.shape for stage in clean.stages]
    for got, expected in zip(parts[0].stages, clean.stages, strict=True):
        torch.testing.assert_close(got, expected)


def test_dropout_on_the_logits_keeps_the_features_whole() -> None:
    model, x = mlp(), torch.randn(6, 3, 8, 8)
    tap = Tap(model, "3", (), DropoutAt("3", 0.5))
    for part in tap.outputs(model, x, drop=True):
        assert part.features.shape == (6, 24)
        assert part.logits.shape == (6, CLASSES)


class Placed(nn.Module):
    """Places where dropout cannot be put."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.twice = nn.ReLU()
        self.never = nn.Linear(8, 8)
        self.pair = Pair()
        self.aside = nn.Linear(8, 8)
        self.first = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        self.aside(x)
        x, _ = self.pair(self.twice(x))
        x = self.twice(x + self.inner(x))
        return self.head(x)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.weight, x


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("never", "at='never': this module ran 0 times in one pass; choose one that runs once"),
        ("twice", "at='twice': this module ran 2 times in one pass; choose one that runs once"),
        ("pair", "at='pair': this module returns a tuple, not a tensor to drop out"),
        ("inner", "at='inner': the layers after it cannot run on clean and dropped copies together .* choose a module"),
        ("aside", "at='aside': the logits do not come from this module's output"),
    ],
)
@pytest.mark.parametrize("size", [1, 6])
def test_bad_places(at: str, message: str, size: int) -> None:
    """Also for a batch of one, whose three copies would broadcast against it."""
    model = Placed()
    tap = Tap(model, "head", dropout_at=DropoutAt(at, 0.5))
    with pytest.raises((ValueError, RuntimeError), match=message):
        check_dropout(tap, model, torch.randn(size, 8))


def test_a_good_place_passes_the_check() -> None:
    model = Placed()
    check_dropout(Tap(model, "head", dropout_at=DropoutAt("first", 0.5)), model, torch.randn(6, 8))


# The model's own dropout


def test_dropout_before() -> None:
    x = torch.randn(2, 8)
    for model, expected in [
        (nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.2), nn.Linear(6, 3)), "1"),
        (nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.2), nn.Flatten(), nn.Identity(), nn.Linear(6, 3)), "1"),
        (nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.0), nn.Linear(6, 3)), None),
        (nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)), None),
        (nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)), None),
    ]:
        assert dropout_before(model, find_head(model, x), x) == expected


def test_functional_dropout_is_untouched_by_the_probe() -> None:
    """A probe in evaluation mode must see no functional dropout of a model that follows its own mode."""

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.dropout(x, 0.5, self.training))

    model, x = Functional(), torch.randn(2, 8)
    features = check_head(Tap(model, "head"), model, x).features
    torch.testing.assert_close(features, x)
