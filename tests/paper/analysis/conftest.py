"""A small network that has learned the digits, and the images it is measured on."""

from typing import Any, NamedTuple

import msgspec
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfdistill.data import load_data
from selfdistill.evaluation.images import Images


class Trained(NamedTuple):
    model: nn.Module
    images: Images


@pytest.fixture(scope="session")
def trained() -> Trained:
    """BatchNorm, a hidden layer of 32 units before the head, most of its 300 training images right."""
    data = load_data("digits", per_class=30, test_per_class=20)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 16, 4, stride=4, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 8 * 8, 32),
            nn.ReLU(),
            nn.Linear(32, 10),
        )
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        ((x, y),) = Images(data.train, data, "cpu").batches()
        for _ in range(40):
            optimiser.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimiser.step()
        optimiser.zero_grad()
    with torch.no_grad():
        assert (model.eval()(x).argmax(dim=1) == y).float().mean() > 0.98
    return Trained(model, Images(data.test, data, "cpu"))


def round_trip(found: msgspec.Struct) -> Any:
    """Return a result as it is read from the file that it is cached in."""
    return msgspec.convert(msgspec.json.decode(msgspec.json.encode(found)), type(found))
