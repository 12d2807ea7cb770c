"""Which images per step is made of, against the rule written down image by image."""

import math

import pytest
import torch

from selfdistill.data.randomness import generator, hash_key
from selfdistill.data.same_class import GroupSampler
from selfdistill.data.steps import Steps

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 0, 0, 0, 3, 1, 0])  # 14 images, class 3 has one


def make(**changed) -> Steps:
    return Steps(LABELS, **({"group": 1, "batch_size": 12, "passes": 1, "seed": 3} | changed))


def indices(steps: Steps, epoch: int, start: int = 0) -> list[list[int]]:
    assert {made.epoch for made in steps.passes(epoch, start)} <= {epoch}
    return [made.index.tolist() for made in steps.passes(epoch, start)]


def by_hand(epoch, *, group, batch_size, shares) -> list[list[list[int]]]:
    """Return the shares of each step."""
    order = torch.randperm(len(LABELS), generator=generator(hash_key(3, epoch, 1 << 20))).tolist()
    sampler = GroupSampler(LABELS, group - 1, 3, device="cpu") if group > 1 else None
    anchors = batch_size // group
    cut = [order[step * anchors : (step + 1) * anchors] for step in range(math.ceil(len(order) / anchors))]
    if group == 1 and len(cut[-1]) <= shares:  # one image for each share: too few for a BatchNorm
        last = cut.pop()
        cut[-1] += last
    steps = []
    for chosen in cut:
        filler = 0
        while len(chosen) % shares:
            chosen.append(order[filler % len(order)])
            filler += 1
        each = len(chosen) // shares
        rows = []
        for share in range(shares):
            row = []
            for anchor in chosen[share * each : (share + 1) * each]:
                row.append(anchor)
                if sampler is not None:
                    row.extend(sampler(epoch, torch.tensor([anchor]))[0].tolist())
            rows.append(row)
        steps.append(rows)
    return steps


@pytest.mark.parametrize("group", [1, 2, 3, 4])
@pytest.mark.parametrize(("world_size", "passes"), [(1, 1), (1, 3), (3, 1)])
def test_a_step_is_the_next_anchors_each_with_its_group(group, world_size, passes):
    for epoch in (0, 4):
        whole = by_hand(epoch, group=group, batch_size=6 * group, shares=world_size * passes)
        for rank in range(world_size):
            steps = make(group=group, batch_size=6 * group, passes=passes, rank=rank, world_size=world_size)
            mine = [share for step in whole for share in step[rank * passes : (rank + 1) * passes]]
            assert indices(steps, epoch) == mine
            assert steps.count * passes == len(mine)
            assert indices(steps, epoch, start=1) == mine[passes:]


@pytest.mark.parametrize(
    ("group", "batch_size", "count", "last"), [(1, 4, 4, 2), (2, 8, 4, 4), (4, 8, 7, 8), (4, 20, 3, 16)]
)
def test_an_epoch_has_each_image_as_an_anchor_once(group, batch_size, count, last):
    steps = make(group=group, batch_size=batch_size)
    made = indices(steps, 2)
    assert steps.count == len(made) == count
    assert [len(index) for index in made] == [batch_size] * (count - 1) + [last]
    anchors = [anchor for index in made for anchor in index[::group]]
    assert sorted(anchors) == list(range(14))
    assert anchors != list(range(14))
    for index in made:
        labels = LABELS[index].reshape(-1, group)
        assert (labels == labels[:, :1]).all()


def test_bake_as_published_has_1563_steps_of_128():
    steps = Steps(torch.arange(50_000) % 100, group=4, batch_size=128, passes=1, seed=0)
    assert steps.count == 1563


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("passes", [1, 2])
def test_the_pass_before_is_the_one_that_was(group, passes):
    for rank in range(2):
        steps = make(group=group, passes=passes, rank=rank, world_size=2)
        run = [made for epoch in range(3) for made in steps.passes(epoch)]
        assert steps.before(0) is None
        for epoch in range(3):
            for step in range(steps.count):
                at = (epoch * steps.count + step) * passes
                before = steps.before(epoch, step)
                if at:
                    assert before.epoch == run[at - 1].epoch
                    assert torch.equal(before.index, run[at - 1].index)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"batch_size": 10, "group": 4},
            "multiple of images of a group x world_size x passes = 4 x 1 x 1: use 8 or 12",
        ),
        ({"batch_size": 30, "group": 4, "passes": 2, "world_size": 3}, "= 4 x 3 x 2: use 24 or 48$"),
        ({"batch_size": 3, "group": 4}, "= 4 x 1 x 1: use 4$"),
        ({"batch_size": 0}, "`batch_size` is 0, .* = 1 x 1: use 1$"),
        ({"batch_size": -3, "passes": 2}, "`batch_size` is -3, .* = 1 x 2: use 2$"),
        ({"rank": 2, "world_size": 2}, "passes=1, rank=2, world_size=2: no such share of a step"),
    ],
)
def test_bad_arguments(changed, message):
    with pytest.raises(ValueError, match=message):
        make(**changed)
