"""Class weights and balanced sampling: what they compute, what refuses them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from selfdistill import BYOT, DDGSD, DLB, DML, PSKD, CrossEntropy, LabelSmoothing, RDrop, SelfDistiller
from selfdistill.config import TrainConfig
from selfdistill.data import ImageData, TrainLoader
from selfdistill.data.randomness import generator
from selfdistill.data.steps import Steps, balanced_order
from selfdistill.errors import ArgumentError
from selfdistill.losses import balanced_weights, cross_entropy
from selfdistill.method import Method, Needs
from selfdistill.models import build
from selfdistill.training import train

W = torch.tensor([0.5, 1.0, 3.0])
Y = torch.tensor([0, 1, 2, 2, 1, 0])


def literal(z: Tensor, labels: Tensor, eps: float = 0.0) -> Tensor:
    """The mean over images of the sum over classes of -w t log p."""
    total = z.new_zeros(())
    for row, label in zip(z, labels, strict=True):
        t = F.one_hot(label, 3).float() if label.dim() == 0 else label
        t = (1 - eps) * t + eps / 3
        total = total - (W * t * (row - row.exp().sum().log())).sum()
    return total / len(z)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = torch.tensor([0] * 7 + [1] * 2 + [2])
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
    torch.testing.assert_close(balanced_weights(labels, 3), torch.tensor(wanted, dtype=torch.float32))


@pytest.mark.parametrize("eps", [0.0, 0.2])
def test_a_weighted_loss_is_that_of_torch_for_probabilities(eps: float) -> None:
    z = torch.randn(6, 3, requires_grad=True)
    ours = cross_entropy(z, Y, eps, W)
    theirs = F.cross_entropy(z, F.one_hot(Y, 3).float(), weight=W, label_smoothing=eps)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(ours, literal(z, Y, eps))
    torch.testing.assert_close(cross_entropy(z, Y, eps, torch.ones(3)), cross_entropy(z, Y, eps))
    for one, other in zip(*(torch.autograd.grad(loss, z) for loss in (ours, theirs)), strict=True):
        torch.testing.assert_close(one, other)


def net() -> nn.Module:
    return build("resnet10_cifar", 3, width=4)


def distilled(method: Method, **given: object) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The logits that the label losses saw, and the terms, of one step with class weights."""
    torch.manual_seed(0)
    seen: list[Tensor] = []
    model, x = net(), torch.randn(6, 3, 16, 16)
    if isinstance(method, RDrop):
        model = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    distiller = SelfDistiller(model, method, example_input=x[:2], class_weights=W)
    ce_inputs = method.ce_inputs
    method.ce_inputs = lambda step: [seen.append(z) or (z, labels, w) for z, labels, w in ce_inputs(step)]  # type: ignore
    if method.needs.progress:
        distiller.set_progress(0.5)
    output = distiller(x, Y, **given)
    output.loss.backward()
    return seen, output.terms


@pytest.mark.parametrize(
    ("method", "shares", "eps"),
    [
        (CrossEntropy(), [1.0], 0.0),
        (LabelSmoothing(0.1), [1.0], 0.1),
        (RDrop(), [0.5, 0.5], 0.0),
        (DML(peer=net()), [0.5, 0.5], 0.0),
        (DDGSD(), [1.0, 1.0], 0.0),
        (DLB(), [1.0], 0.0),
        (PSKD(samples=6), [1.0], 0.0),
        (BYOT(), [1.0], 0.0),
    ],
)
def test_methods_weigh_classes_in_what_they_make_of_the_label_loss(
    method: Method, shares: list[float], eps: float
) -> None:
    given: dict[str, object] = {"index": torch.arange(6)}
    if method.needs.views > 1:
        given["views"] = [torch.randn(6, 3, 16, 16)]
    logits, terms = distilled(method, **given)
    wanted = sum(share * literal(z, Y, eps) for share, z in zip(shares, logits, strict=True))
    torch.testing.assert_close(terms["ce"], torch.as_tensor(wanted), rtol=1e-5, atol=1e-6)


def test_branches_and_labels_of_the_past_are_weighted_too() -> None:
    heads: list[Tensor] = []
    method = BYOT()
    torch.manual_seed(0)
    x = torch.randn(6, 3, 16, 16)
    distiller = SelfDistiller(net(), method, example_input=x[:2], class_weights=W)
    for branch in method.branches:
        branch.register_forward_hook(lambda _, __, out: heads.append(out[0]))
    terms = distiller(x, Y).terms
    torch.testing.assert_close(terms["branch_ce"], sum(literal(z, Y) for z in heads))

    past = PSKD(samples=6, weight=1.0)
    distiller = SelfDistiller(net(), past, example_input=x[:2], class_weights=W)
    distiller.set_progress(0.5, 0.5)
    first = distiller(x, Y, index=torch.arange(6)).logits
    output = distiller(x, Y, index=torch.arange(6))
    mixed = 0.5 * F.one_hot(Y, 3) + 0.5 * first.softmax(dim=1)
    torch.testing.assert_close(output.terms["ce"], literal(output.logits, mixed.detach()))


class OwnLoss(Method):
    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels)


@pytest.mark.parametrize(("method", "weights"), [(OwnLoss(), W), (CrossEntropy(), torch.ones(4))])
def test_weights_that_would_be_ignored_or_do_not_fit_are_refused(method: Method, weights: Tensor) -> None:
    with pytest.raises(ArgumentError) as refused:
        SelfDistiller(net(), method, example_input=torch.zeros(2, 3, 16, 16), class_weights=weights)
    assert refused.value.argument == "class_weights"


def test_a_balanced_epoch_has_as_many_images_of_each_class() -> None:
    labels = torch.tensor([0] * 70 + [1] * 25 + [3] * 5)
    drawn = balanced_order(labels, generator(7))
    assert len(drawn) == len(drawn.unique()) == 100
    index, before = drawn % 100, drawn // 100
    counts = labels[index].bincount().tolist()
    assert sorted(counts) == [0, 33, 33, 34]
    times = index.bincount(minlength=100)
    assert times[70:95].unique().tolist() == [1, 2]  # 33 of 25 images
    assert times[95:].unique().tolist() in ([6, 7], [7])
    assert all(sorted(before[index == at].tolist()) == list(range(n)) for at, n in enumerate(times.tolist()))
    for start in range(0, 99, 3):
        assert len(set(labels[index[start : start + 3]].tolist())) == 3


def test_balanced_steps_do_not_depend_on_the_processes() -> None:
    labels = torch.arange(40).clamp(max=9) // 9

    def drawn(world_size: int, start: int = 0) -> list[list[int]]:
        ranks = [
            Steps(labels, batch_size=8, passes=1, seed=1, rank=rank, world_size=world_size, balanced=True).passes(
                2, start
            )
            for rank in range(world_size)
        ]
        return [[at for one in step for at in one.draw.tolist()] for step in zip(*ranks, strict=True)]

    assert drawn(1) == drawn(2) == drawn(4)
    assert drawn(2, start=3) == drawn(2)[3:]


@pytest.mark.parametrize("kind", ["data", "photos"])
def test_an_image_drawn_again_is_augmented_anew(request: pytest.FixtureRequest, kind: str) -> None:
    data: ImageData = request.getfixturevalue(kind)
    few = data.train.select(
        torch.cat([(data.train.labels == 0).nonzero()[:, 0], (data.train.labels == 1).nonzero()[:1, 0]])
    )
    loader = TrainLoader(
        replace(data, train=few), Needs(index=True), batch_size=16, seed=0, device="cpu", workers=0, balanced=True
    )
    (batch,) = next(iter(loader.epoch(0)))
    rare = batch.x[batch.y == 1]
    assert len(rare) == 8
    assert set(batch.index[batch.y == 1].tolist()) == {len(few) - 1}
    assert len({image.numpy().tobytes() for image in rare}) > 4


@pytest.mark.parametrize(
    ("changes", "argument"),
    [
        ({"balanced_sampling": True, "class_weights": "balanced"}, "balanced_sampling"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing"),
        (
            {"gradient_checkpointing": True, "model": "timm:test_resnet", "width": None, "method": "BYOT()"},
            "gradient_checkpointing",
        ),
        ({"sync_batchnorm": True}, "sync_batchnorm"),
        ({"precision": "16-mixed"}, "precision"),
    ],
)
def test_what_cannot_be_done_is_refused_at_the_start(
    tmp_path: Path, recipe: TrainConfig, data: ImageData, changes: dict[str, object], argument: str
) -> None:
    with pytest.raises(ArgumentError) as refused:
        train(replace(recipe, **changes), tmp_path / "run", data=data, accelerator="cpu")  # type: ignore[arg-type]
    assert refused.value.argument == argument
    assert not (tmp_path / "run").exists()
