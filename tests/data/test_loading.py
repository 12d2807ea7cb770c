from dataclasses import replace

import pytest
import torch

from selfdistill.data import ImageData, Split, TrainLoader, eval_batches
from selfdistill.data.augment import Crop
from selfdistill.data.partners import PAIR_VIEW, Partners
from selfdistill.method import Batch, Needs

ALL = Needs(views=3, pair="other", index=True)


def loader(data: ImageData, needs: Needs = ALL, **changed) -> TrainLoader:
    return TrainLoader(data, needs, **({"batch_size": 12, "seed": 4, "device": "cpu"} | changed))


def flat(batches) -> list[Batch]:
    return [batch for step in batches for batch in step]


def assert_same(a: Batch, b: Batch) -> None:
    for one, other in zip((a.x, a.y, a.pair, a.index, *a.views), (b.x, b.y, b.pair, b.index, *b.views), strict=True):
        assert torch.equal(one, other)


def test_an_epoch_is_every_image_once_in_ceil_steps(coded):
    made = loader(coded)
    batches = flat(made.epoch(0))
    assert made.steps == len(batches) == 5
    assert [len(batch.y) for batch in batches] == [12, 12, 12, 12, 2]
    index = torch.cat([batch.index for batch in batches])
    assert index.sort().values.tolist() == list(range(50))
    assert index.tolist() != list(range(50))
    assert torch.equal(torch.cat([batch.y for batch in batches]), coded.train.labels[index])


def test_views_and_partners_are_the_images_under_their_own_draws(coded):
    crop = Crop(pad=2, flip=True, seed=4)
    partners = Partners(coded.train.labels, "other", seed=4, device="cpu")
    for batch in flat(loader(coded).epoch(6)):
        partner = partners(6, batch.index)
        for pixels, index, view in (
            (batch.x, batch.index, 0),
            (batch.views[0], batch.index, 1),
            (batch.views[1], batch.index, 2),
            (batch.pair, partner, PAIR_VIEW),
        ):
            expected = crop(coded.train.images[index], index, epoch=6, view=view).float()
            torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-3)
        assert not torch.equal(batch.x, batch.views[0])
        assert len(batch.views) == 2


def test_what_is_not_needed_is_not_there(coded):
    batch = flat(loader(coded, Needs()).epoch(0))[0]
    assert batch.views == ()
    assert batch.pair is None
    assert batch.index is None


def test_epochs_and_seeds_differ_and_repeat(coded):
    first = flat(loader(coded).epoch(0))[0]
    assert_same(first, flat(loader(coded).epoch(0))[0])
    for other in (flat(loader(coded).epoch(1))[0], flat(loader(coded, seed=5).epoch(0))[0]):
        assert not torch.equal(first.index, other.index)


def test_an_image_is_augmented_alike_whatever_the_batch_size_and_the_step(coded):
    pictures = {}
    for size in (7, 50):
        batches = flat(loader(coded, batch_size=size).epoch(3))
        index = torch.cat([batch.index for batch in batches])
        pictures[size] = (index, *(torch.cat([b.x if v < 0 else b.views[v] for b in batches]) for v in (-1, 0, 1)))
    for small, large in zip(pictures[7], pictures[50], strict=True):
        assert torch.equal(small, large)


@pytest.mark.parametrize("start", [0, 1, 3, 5])
def test_starting_at_a_step_continues_the_epoch(coded, start):
    made = loader(coded, passes=2)
    whole, rest = list(made.epoch(2)), list(made.epoch(2, start=start))
    assert len(rest) == 5 - start
    for one, other in zip(flat(whole[start:]), flat(rest), strict=True):
        assert_same(one, other)


def test_shares_cover_the_step_and_are_those_of_one_process(coded):
    alone = [list(step) for step in loader(coded, passes=4).epoch(1)]
    ranks = [list(loader(coded, passes=2, rank=rank, world_size=2).epoch(1)) for rank in range(2)]
    for step, shares in enumerate(alone):
        assert len({len(share.y) for share in shares}) == 1
        for one, other in zip(shares, (*ranks[0][step], *ranks[1][step]), strict=True):
            assert_same(one, other)
    order = torch.cat([batch.index for batch in flat(loader(coded).epoch(1))])
    covered = torch.cat([share.index for step in alone for share in step])
    assert torch.equal(covered[:50], order)
    assert torch.equal(covered[50:], order[:2])  # the last step's 2 images are filled up to 4 shares of 1


def test_more_shares_than_images(coded):
    tiny = replace(coded, train=coded.train.select(torch.arange(3)))
    index = [loader(tiny, Needs(index=True), batch_size=8, rank=rank, world_size=8).epoch(0) for rank in range(8)]
    drawn = [flat(batches)[0].index.tolist() for batches in index]
    assert all(len(share) == 1 for share in drawn)
    assert {share[0] for share in drawn} == {0, 1, 2}


def test_the_global_generator_is_not_touched_and_does_not_matter(coded):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = flat(loader(coded).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    for one, other in zip(first, flat(loader(coded).epoch(0)), strict=True):
        assert_same(one, other)


@pytest.mark.parametrize(("augment", "differs"), [("none", False), ("crop", True), ("crop_flip", True)])
def test_the_set_s_augmentation_can_be_replaced(coded, augment, differs):
    batch = flat(loader(coded, augment=augment).epoch(0))[0]
    plain = coded.train.images[batch.index].float()
    assert torch.allclose(batch.x, plain, atol=1e-3) is not differs


def test_channels_last(coded):
    batch = flat(loader(coded, channels_last=True).epoch(0))[0]
    for pixels in (batch.x, *batch.views, batch.pair):
        assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch.x, flat(loader(coded).epoch(0))[0].x)


def test_eval_batches_are_the_split_in_order(coded):
    batches = list(eval_batches(coded.test, coded, batch_size=20, device="cpu"))
    assert [len(y) for _, y in batches] == [20, 20, 10]
    torch.testing.assert_close(torch.cat([x for x, _ in batches]), coded.test.images.float(), rtol=0, atol=1e-3)
    assert torch.equal(torch.cat([y for _, y in batches]), coded.test.labels)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"augment": "crop_flop"},
            r"augment='crop_flop' is unknown \(did you mean 'crop_flip'\?\): use one of none, crop",
        ),
        (
            {"augment": "resized_crop_flip"},
            "is for image files decoded while training, and coded is in memory: use 'none'",
        ),
        ({"batch_size": 0}, "batch_size=0: a positive multiple of world_size x passes = 1 x 1 is needed"),
        (
            {"batch_size": 12, "passes": 5},
            "batch_size=12: a positive multiple of world_size x passes = 1 x 5 is needed",
        ),
        ({"rank": 2, "world_size": 2}, "passes=1, rank=2, world_size=2: no such share of a step"),
        ({"workers": -1}, "workers=-1: at least 0 is needed"),
    ],
)
def test_bad_arguments(coded, changed, message):
    with pytest.raises(ValueError, match=message):
        loader(coded, **changed)


def test_a_start_beyond_the_epoch_is_refused_at_once(coded):
    with pytest.raises(ValueError, match="start=6: an epoch has 5 steps"):
        loader(coded).epoch(0, start=6)


def test_a_split_holds_images_or_paths():
    with pytest.raises(ValueError, match="either images or paths, 0 of the two were given"):
        Split(torch.tensor([0]))
    with pytest.raises(ValueError, match="one label an image, not 1 for 2"):
        Split(torch.tensor([0]), images=torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
