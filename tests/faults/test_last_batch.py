"""A last batch of one image is joined to the one before: a BatchNorm on 1 x 1 maps cannot train on one."""

import pytest
import torch
from torch import nn

from selfdistill import CrossEntropy, SelfDistiller
from selfdistill.data.loading import TrainLoader
from selfdistill.data.sets import ImageData, Split
from selfdistill.data.steps import Steps
from selfdistill.methods import parse_method


def images(count: int) -> ImageData:
    split = Split(torch.arange(count) % 2, images=torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8))
    return ImageData("noise", split, split, ("a", "b"), (0.5,) * 3, (0.25,) * 3, 8, "crop_flip", "test")


def sizes(count: int, batch_size: int, **changed: int) -> list[int]:
    steps = Steps(torch.arange(count) % 2, **({"batch_size": batch_size, "passes": 1, "seed": 0} | changed))
    made = steps.passes(1)
    assert steps.count * changed.get("passes", 1) == len(made)
    return [len(one.index) for one in made]


@pytest.mark.parametrize(
    ("count", "changed", "expected"),
    [
        (33, {}, [8, 8, 8, 9]),
        (9, {}, [9]),
        (34, {}, [8, 8, 8, 8, 2]),
        (32, {}, [8, 8, 8, 8]),
        (1, {}, [1]),
        (33, {"passes": 2}, [4] * 6 + [5, 5]),
        (34, {"passes": 2}, [4] * 6 + [5, 5]),
        (35, {"passes": 2}, [4] * 8 + [2, 2]),
        (34, {"world_size": 2, "rank": 1}, [4, 4, 4, 5]),
        (33, {"group": 2}, [8] * 8 + [2]),
        (17, {"passes": 8}, [1] * 24),
    ],
)
def test_sizes_of_batches(count: int, changed: dict[str, int], expected: list[int]) -> None:
    assert sizes(count, 8, **changed) == expected


def test_each_image_occurs_once_and_in_order() -> None:
    joined, larger = (
        [one.index for one in Steps(torch.zeros(17).long(), batch_size=size, passes=1, seed=3).passes(2)]
        for size in (8, 17)
    )
    assert torch.equal(torch.cat(joined), larger[0])


@pytest.mark.parametrize(
    "text", ["CrossEntropy()", "CSKD()", "DDGSD()", "DLB()", "PSKD(samples=9)", "BAKE(partners=0)"]
)
def test_an_epoch_trains_with_batchnorm_on_single_values(text: str) -> None:
    method = parse_method(text)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    loader = TrainLoader(images(9), method.needs, batch_size=4, seed=0, device="cpu")
    distiller = SelfDistiller(model, method)
    for epoch in range(2):
        distiller.set_progress(epoch / 2, (epoch + 1) / 2)
        for (batch,) in loader.epoch(epoch):
            distiller(batch.x, batch.y, batch.views, batch.pair, batch.index, batch.previous).loss.backward()


def test_resuming_at_the_joined_step_gives_its_batch() -> None:
    loader = TrainLoader(images(9), CrossEntropy().needs, batch_size=4, seed=0, device="cpu")
    whole, rest = list(loader.epoch(1)), list(loader.epoch(1, start=1))
    assert [len(batch.y) for (batch,) in whole] == [4, 5]
    assert torch.equal(whole[1][0].x, rest[0][0].x)
    assert list(loader.epoch(1, start=2)) == []
