"""Networks that are not what a probe in evaluation mode sees, and what hooks cannot see."""

import copy
import random
import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from selfdistill import BYOT, CrossEntropy, LabelSmoothing, RDrop, SDDropout, SelfDistiller

X, Y = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])


class ReID(nn.Module):
    """Gives its embedding in evaluation mode, its logits in training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone, self.embedding, self.classifier = nn.Linear(8, 32), nn.Linear(32, width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Any:
        embedding = self.embedding(self.backbone(x).relu())
        return self.classifier(embedding) if self.training else embedding


class Tuples(ReID):
    """Gives the entries that are asked for, in both modes."""

    def __init__(self, *entries: str) -> None:
        super().__init__(16)
        self.norm, self.entries = nn.BatchNorm1d(16), entries

    def forward(self, x: Tensor) -> Any:
        features = self.embedding(self.backbone(x).relu())
        logits = self.classifier(self.norm(features).relu())
        named = {"features": features, "logits": logits, "p": logits.softmax(1), "plain": features.detach()}
        return tuple(named[entry] for entry in self.entries)


@pytest.mark.parametrize("width", [16, 3])
@pytest.mark.parametrize("head", [None, "embedding", "classifier"])
@pytest.mark.parametrize("example", [True, False])
def test_an_embedding_in_evaluation_mode_is_no_logits(width: int, head: str | None, example: bool) -> None:
    with pytest.raises((ValueError, RuntimeError), match=f"head.*{head or 'embedding'!r}"):
        SelfDistiller(ReID(width), SDDropout(), head=head, example_input=X if example else None)(X, Y)


@pytest.mark.parametrize("entries", [("features", "logits"), ("plain", "logits"), ("features", "p", "logits")])
@pytest.mark.parametrize("frozen", [False, True])
def test_features_before_logits_are_refused(entries: tuple[str, ...], frozen: bool) -> None:
    model = Tuples(*entries)
    model.backbone.requires_grad_(not frozen)
    model.embedding.requires_grad_(not frozen)
    with pytest.raises(ValueError, match="features, then logits"):
        SelfDistiller(model, SDDropout())(X, Y)


@pytest.mark.parametrize("entries", [("logits",), ("logits", "features"), ("logits", "p", "features", "plain")])
def test_logits_before_anything_are_accepted(entries: tuple[str, ...]) -> None:
    distiller = SelfDistiller(Tuples(*entries), SDDropout())
    distiller(X, Y).loss.backward()
    assert distiller.head == "classifier"


def test_features_and_logits_by_name_are_accepted() -> None:
    class Answer(NamedTuple):
        features: Tensor
        logits: Tensor

    class Named(Tuples):
        def forward(self, x: Tensor) -> Answer:
            return Answer(*super().forward(x))

    distiller = SelfDistiller(Named("features", "logits"), SDDropout())
    assert distiller(X, Y).logits.shape == (6, 3)
    assert distiller.head == "classifier"


@pytest.mark.parametrize("method", [CrossEntropy(), SDDropout()], ids=repr)
@pytest.mark.parametrize("rows", [1, 6])
def test_a_batchnorm_without_statistics_trains(method: Any, rows: int) -> None:
    norm = nn.BatchNorm1d(16, track_running_stats=False)
    model = nn.Sequential(nn.Linear(8, 16), norm, nn.ReLU(), nn.Linear(16, 3))
    assert SelfDistiller(model, method, example_input=X[:rows])(X, Y).loss.isfinite()
    with pytest.raises(ValueError, match=r"^a batch of 1 is too small"):
        SelfDistiller(model, method)(X[:1], Y[:1])


@pytest.mark.parametrize("shape", [(4, 1), (4,)])
@pytest.mark.parametrize("training", [True, False])
def test_one_logit_is_refused(shape: tuple[int, ...], training: bool) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    with pytest.raises(ValueError, match="C >= 2"):
        SelfDistiller(model, CrossEntropy()).train(training)(X[:4], torch.zeros(shape))


# A softmax that is a part of the head


class Ending(nn.Module):
    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        self.body, self.classifier = nn.Linear(8, 16), nn.Sequential(nn.Linear(16, 3), end)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.body(x).relu())


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.Sigmoid()], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probabilities_in_the_place_of_logits_warn(end: nn.Module, dtype: torch.dtype) -> None:
    with pytest.warns(UserWarning, match="take logits"):
        SelfDistiller(Ending(end).to(dtype), SDDropout(), example_input=X.to(dtype))


def test_a_log_softmax_in_the_head_changes_nothing() -> None:
    """It shifts each row, which no loss sees: nothing to warn of."""
    losses, plain = [], Ending(nn.Identity())
    for end in (nn.Identity(), nn.LogSoftmax(1)):
        model = copy.deepcopy(plain)
        model.classifier[1] = end
        torch.manual_seed(1)
        losses.append(SelfDistiller(model, SDDropout() + LabelSmoothing())(X, Y).loss)
    torch.testing.assert_close(losses[1], losses[0])


# Activation checkpoints


class Checkpointed(nn.Module):
    """Two stages and a head; a part of them inside an activation checkpoint."""

    def __init__(self, part: str, reentrant: bool | None) -> None:
        super().__init__()
        self.stem, self.stage, self.deep = (nn.Conv2d(i, 8, 3, padding=1) for i in (3, 8, 8))
        self.fc, self.part, self.reentrant = nn.Linear(8, 3), part, reentrant

    def _tail(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))

    def _stage(self, x: Tensor) -> Tensor:
        return self.stage(x).relu()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for name, run in (("stage", self._stage), ("deep", self.deep), ("head", self._tail)):
            here = self.reentrant is not None and self.part == name and torch.is_grad_enabled()
            x = checkpoint(run, x, use_reentrant=self.reentrant) if here else run(x)
        return x


IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("method", "part"), [(SDDropout(), "head"), (BYOT(), "stage"), (BYOT(), "head")])
@pytest.mark.parametrize("example", [True, False])
def test_a_reentrant_checkpoint_around_what_is_read_is_an_error(method: Any, part: str, example: bool) -> None:
    model, stages = Checkpointed(part, True), ("stage", "deep") if method.needs.stages else None
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        SelfDistiller(model, copy.deepcopy(method), stages=stages, example_input=IMAGES)(IMAGES, Y)


@pytest.mark.parametrize(
    ("part", "reentrant"), [("stage", False), ("deep", False), ("head", False), ("stage", True), ("deep", True)]
)
def test_checkpoints_that_keep_the_graph_give_the_same_gradient(part: str, reentrant: bool) -> None:
    plain = Checkpointed(part, None)
    gradients = []
    for setting in (None, reentrant):
        model = copy.deepcopy(plain)
        model.reentrant = setting
        torch.manual_seed(1)
        SelfDistiller(model, SDDropout())(IMAGES, Y).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0])


def test_a_frozen_backbone_needs_no_graph() -> None:
    class Probed(Ending):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                features = self.body(x)
            return self.classifier(features)

    for model in (Probed(nn.Identity()), Ending(nn.Identity())):
        model.body.requires_grad_(isinstance(model, Probed))
        SelfDistiller(model, SDDropout())(X, Y).loss.backward()
        assert model.classifier[0].weight.grad is not None


# What a pass in training mode changes is put back


class Nasty(nn.Module):
    """Changes all that it can when it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm = nn.Linear(8, 16), nn.BatchNorm1d(16)
        self.scaled = nn.utils.parametrizations.spectral_norm(nn.Linear(16, 16))
        self.head = nn.Linear(16, 3)
        self.register_buffer("seen", torch.zeros(()))
        self.calls, self.cache = 0, torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
            self.calls += 1
            self.cache = x.detach().sum()
            self.head.weight.data = F.normalize(self.head.weight.data)
            with torch.no_grad():
                self.body.bias.mul_(random.random() + np.random.random())  # noqa: NPY002
        return self.head(F.dropout(self.scaled(self.norm(self.body(x))), 0.1, self.training))


@pytest.mark.parametrize("method", [SDDropout(), RDrop()], ids=repr)
def test_the_probe_puts_everything_back(method: Any) -> None:
    model = Nasty()
    model.norm.eval()
    graph = model.head(torch.ones(1, 16))  # a graph of the user's that is still to be used
    before = copy.deepcopy((model.state_dict(), model.calls, model.cache))
    modes = [module.training for module in model.modules()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    identities = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    SelfDistiller(model, method, example_input=X)
    assert all(torch.equal(value, before[0][name]) for name, value in model.state_dict().items())
    assert (model.calls, model.cache) == before[1:]
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # noqa: NPY002
    assert [id(tensor) for tensor in (*model.parameters(), *model.buffers())] == identities
    assert all(parameter.grad is None for parameter in model.parameters())
    graph.sum().backward()


def test_a_network_without_any_of_this_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SelfDistiller(Ending(nn.Identity()), SDDropout())(X, Y).loss.backward()
