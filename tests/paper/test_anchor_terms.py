"""The terms of our log are those that the authors logged: with T squared, without lambda."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfdistill import SelfDistiller
from selfdistill.methods import parse_method
from selfdistill.models import build
from selfdistill.paper import TABLES
from selfdistill.training.meters import Loss, Meters
from tests.nets import CLASSES
from tests.reference import algorithm_1, byot, cs_kd, ddgsd, sd_dropout

ANCHORS = TABLES["anchors"]


class Net:
    """A ResNet in float64, its images, and the pieces of a step that a term is written down from."""

    def __init__(self) -> None:
        self.model: Any = build("resnet10_cifar", CLASSES, width=4).double()
        self.x, self.other = torch.randn(2, 6, 3, 16, 16, dtype=torch.float64)
        self.y = torch.arange(6) % CLASSES
        self.method: Any = None

    def stages(self, x: Tensor) -> list[Tensor]:
        model = self.model
        maps = [model.layer1(model.relu(model.bn1(model.conv1(x))))]
        for layer in (model.layer2, model.layer3, model.layer4):
            maps.append(layer(maps[-1]))
        return maps

    def features(self, x: Tensor) -> Tensor:
        return self.stages(x)[-1].mean((2, 3))

    def z(self, x: Tensor) -> Tensor:
        return self.model.fc(self.features(x))

    def views(self) -> tuple[Tensor, Tensor]:
        """The features of both views, which pass at once."""
        f_a, f_b = self.features(torch.cat([self.x, self.other])).chunk(2)
        return f_a, f_b

    def branches(self) -> list[Tensor]:
        parts = self.method.parts
        (own,) = [part for part in parts if hasattr(part, "branches")]
        return [branch(stage)[0] for branch, stage in zip(own.branches, self.stages(self.x), strict=False)]


def masks(count: int) -> Sequence[Tensor]:
    """Return the masks that the library draws under the seed 7 for six images, ``(6, 32)`` each."""
    torch.manual_seed(7)
    return F.dropout(torch.ones(6 * count, 32, dtype=torch.float64), 0.5).chunk(count)


def logged_ce(net: Net) -> Tensor:
    return algorithm_1.ce_loss(net.z(net.x), net.y.tolist())


def logged_sdd(net: Net) -> Tensor:
    feature, (u, v) = net.features(net.x), masks(2)
    z_u, z_v = net.model.fc(feature * u), net.model.fc(feature * v)
    return 9 * (algorithm_1.kl_div_loss(z_u, z_v, 3.0) + algorithm_1.kl_div_loss(z_v, z_u, 3.0))


def logged_one_sided(net: Net) -> Tensor:
    return 9 * sd_dropout.one_sided(net.model.fc, net.features(net.x), masks(1)[0], 3.0)


def logged_cs_kd(net: Net) -> Tensor:
    return 16 * cs_kd.kl_to_partner(net.z(net.x), net.z(net.other), 4.0)


def logged_two_ce(net: Net) -> Tensor:
    return sum((ddgsd.cross_entropy(net.model.fc(f), net.y.tolist()) for f in net.views()), torch.zeros(()))


def logged_ddgsd(net: Net) -> Tensor:
    z_a, z_b = (net.model.fc(f) for f in net.views())
    return 9 * (ddgsd.divergence(z_a, z_b, 3.0) + ddgsd.divergence(z_b, z_a, 3.0))


def logged_mmd(net: Net) -> Tensor:
    return ddgsd.mean_discrepancy(*net.views())


def logged_across_views(net: Net) -> Tensor:
    return 9 * sd_dropout.across_views(net.model.fc, *net.views(), *masks(2), 3.0)


def logged_byot(net: Net) -> Tensor:
    return 9 * sum((byot.from_deepest(net.z(net.x), z_i, 3.0) for z_i in net.branches()), torch.zeros(()))


def logged_branch_ce(net: Net) -> Tensor:
    return sum((byot.nll(z_i, net.y.tolist()) for z_i in net.branches()), torch.zeros(()))


CE, SDD = {"Training CE": logged_ce}, {"Training 9 SDD": logged_sdd}
CSKD = CE | {"Training 16 KL": logged_cs_kd}
DDGSD = {
    "Training CE, sum of two views": logged_two_ce,
    "Training 9 KL, both ways": logged_ddgsd,
    "Training MMD": logged_mmd,
}
BYOT = CE | {
    "Training 9 KL, sum of three branches": logged_byot,
    "Training CE, sum of three branches": logged_branch_ce,
}
LITERAL: dict[str, dict[str, Callable[[Net], Tensor]]] = {
    "Cross-entropy": CE,
    "SD-Dropout": CE | SDD,
    "SD-Dropout, one-sided": CE | {"Training 9 SDD": logged_one_sided},
    "CS-KD": CSKD,
    "CS-KD + 0.1 SD-Dropout": CSKD | SDD,
    "DDGSD": DDGSD,
    "DDGSD + 0.1 SD-Dropout": DDGSD | {"Training 9 SDD": logged_across_views},
    "BYOT, lambda 1": BYOT,
    "BYOT, lambda 1, + 0.1 SD-Dropout": BYOT | SDD,
}


@pytest.mark.parametrize("row", LITERAL)
def test_our_log_gives_the_terms_that_the_authors_logged(row: str) -> None:
    specs = [spec for spec in ANCHORS.cells if spec.row == row and spec.column.startswith("Training")]
    assert {spec.column for spec in specs} == set(LITERAL[row])
    (training,) = {spec.training for spec in specs}
    assert training is not None
    net = Net()
    net.method = parse_method(training.method)
    distiller = SelfDistiller(net.model, net.method, example_input=net.x)
    needs = net.method.needs
    torch.manual_seed(7)
    output = distiller(
        net.x,
        net.y,
        views=[net.other] if needs.views > 1 else (),
        pair=net.other if needs.pair else None,
    )
    meters = Meters(torch.device("cpu"))
    meters.add(Loss(output.loss, output.terms, {}, len(net.y)), step=0)
    log = {name: [float("nan"), value] for name, value in meters.means().terms.items()}
    with torch.no_grad():
        for spec in specs:
            (metric,) = spec.metrics
            assert metric.value({"log": log}) == pytest.approx(LITERAL[row][spec.column](net).item(), rel=1e-9), spec


def test_every_published_loss_has_a_literal_formula() -> None:
    columns = {row: {one.column for one in ANCHORS.cells if one.row == row} for row in LITERAL}
    assert all(of_row >= set(LITERAL[row]) for row, of_row in columns.items())
    losses = {one.row for one in ANCHORS.cells if one.column.startswith("Training")}
    assert losses == set(LITERAL)
