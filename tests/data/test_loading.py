from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from selfdistill.data import ImageData, Split, TrainLoader, eval_batches
from selfdistill.data.augment import Crop
from selfdistill.data.loading import GROUP_VIEWS, PREVIOUS_VIEW
from selfdistill.data.same_class import PAIR_VIEW, GroupSampler, PairSampler
from selfdistill.method import Batch, Needs

ALL = Needs(views=3, pair="other", index=True)
GROUPED = ALL | Needs(group=3, previous=True)


def loader(data: ImageData, needs: Needs = ALL, **changed) -> TrainLoader:
    return TrainLoader(data, needs, **({"batch_size": 12, "seed": 4, "device": "cpu"} | changed))


def flat(batches) -> list[Batch]:
    return [batch for step in batches for batch in step]


def assert_same(a: Batch, b: Batch) -> None:
    for one, other in zip(parts(a), parts(b), strict=True):
        assert torch.equal(one, other)


def parts(batch: Batch) -> tuple[torch.Tensor, ...]:
    return (batch.x, batch.y, batch.pair, batch.index, *batch.views, *(batch.previous or ()))


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
    partners = PairSampler(coded.train.labels, "other", seed=4, device="cpu")
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
    assert [batch.previous for batch in flat(loader(coded, Needs()).epoch(0))] == [None] * 5


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


@pytest.mark.parametrize(("needs", "steps"), [(ALL, 4), (GROUPED, 13)])
@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_starting_at_a_step_continues_the_epoch(coded, start, needs, steps):
    made = loader(coded, needs, passes=2)
    whole, rest = list(made.epoch(2)), list(made.epoch(2, start=start))
    assert len(rest) == steps - start
    for one, other in zip(flat(whole[start:]), flat(rest), strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("needs", [ALL, ALL | Needs(group=3)])
def test_shares_are_those_of_one_process(coded, needs):
    alone = [list(step) for step in loader(coded, needs, passes=4).epoch(1)]
    ranks = [list(loader(coded, needs, passes=2, rank=rank, world_size=2).epoch(1)) for rank in range(2)]
    for step, shares in enumerate(alone):
        assert len({len(share.y) for share in shares}) == 1
        for one, other in zip(shares, (*ranks[0][step], *ranks[1][step]), strict=True):
            assert_same(one, other)


def test_shares_cover_the_step(coded):
    alone = [list(step) for step in loader(coded, passes=4).epoch(1)]
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


@pytest.mark.parametrize("needs", [ALL | Needs(previous=True), GROUPED])
def test_channels_last(coded, needs):
    batch = flat(loader(coded, needs, channels_last=True).epoch(1))[0]
    for pixels in (batch.x, *batch.views, batch.pair, batch.previous[0]):
        assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert_same(batch, flat(loader(coded, needs).epoch(1))[0])


def test_eval_batches_are_the_split_in_order(coded):
    batches = list(eval_batches(coded.test, coded, batch_size=20, device="cpu"))
    assert [len(y) for _, y in batches] == [20, 20, 10]
    torch.testing.assert_close(torch.cat([x for x, _ in batches]), coded.test.images.float(), rtol=0, atol=1e-3)
    assert torch.equal(torch.cat([y for _, y in batches]), coded.test.labels)


def test_groups_are_anchors_and_images_of_their_class(coded):
    made = loader(coded, GROUPED)
    batches = flat(made.epoch(6))
    assert made.steps == len(batches) == 13  # of 4 anchors, but for the last one's 2
    assert [len(batch.y) for batch in batches] == [12] * 12 + [6]
    groups = torch.cat([batch.index for batch in batches]).view(50, 3)
    assert groups[:, 0].sort().values.tolist() == list(range(50))
    assert torch.equal(groups[:, 1:], GroupSampler(coded.train.labels, 2, seed=4, device="cpu")(6, groups[:, 0]))
    for batch in batches:
        assert torch.equal(batch.y, coded.train.labels[batch.index])


def test_an_image_of_a_group_has_views_of_its_own(coded):
    crop = Crop(pad=2, flip=True, seed=4)
    partners = PairSampler(coded.train.labels, "other", seed=4, device="cpu")
    made = loader(coded, GROUPED)
    before = flat(made.epoch(5))[-1]
    for batch in flat(made.epoch(6)):
        x_before, y_before = batch.previous
        assert torch.equal(y_before, before.y)
        assert len(batch.views) == 2
        for pixels, indices, epoch, view in (
            (batch.x, batch.index, 6, 0),
            (batch.views[0], batch.index, 6, 1),
            (batch.views[1], batch.index, 6, 2),
            (batch.pair, partners(6, batch.index), 6, PAIR_VIEW),
            (x_before, before.index, 5 if len(before.y) == 6 else 6, PREVIOUS_VIEW),
        ):
            assert len(pixels) == len(indices)
            for row, index in enumerate(indices):
                number = view + row % 3 * GROUP_VIEWS  # the anchor, the second, the third of its group
                alone = crop(coded.train.images[index][None], index[None], epoch=epoch, view=number)
                torch.testing.assert_close(pixels[row], alone[0].float(), rtol=0, atol=1e-3)
        before = batch


def test_no_two_parts_of_a_batch_have_one_view_number():
    parts = (0, 1, 2, 3, PAIR_VIEW, PREVIOUS_VIEW)
    assert len({part + nth * GROUP_VIEWS for part in parts for nth in range(8)}) == 8 * 6


def test_the_mates_of_an_image_alone_in_its_class_are_the_image_augmented_anew(coded):
    labels = coded.train.labels.clone()
    labels[17] = 4
    lonely = replace(coded, train=Split(labels, images=coded.train.images), classes=(*coded.classes, "e"))
    (batch,) = [b for b in flat(loader(lonely, GROUPED | Needs(group=4)).epoch(1)) if 17 in b.index[::4]]
    rows = (batch.y == 4).nonzero()[:, 0]
    assert batch.index[rows].tolist() == [17] * 4
    pictures = torch.cat([part[rows] for part in (batch.x, *batch.views, batch.pair)])
    assert len({tuple(picture.flatten().tolist()) for picture in pictures}) > 12  # of 16; 50 are possible


@pytest.mark.parametrize("needs", [Needs(group=2), Needs(pair="any")])
def test_groups_and_pairs_of_a_set_without_two_images_of_a_class_are_refused(coded, needs):
    few = replace(coded, train=coded.train.select(torch.arange(4)))
    with pytest.raises(ValueError, match="no class has two of the 4 training images: use more images per class"):
        loader(few, needs)


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize(("passes", "world_size"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_the_previous_batch_is_this_rank_s_pass_before_augmented_anew(coded, group, passes, world_size):
    needs = Needs(previous=True, index=True, group=group)
    for rank in range(world_size):
        made = loader(coded, needs, passes=passes, rank=rank, world_size=world_size)
        plain = loader(coded, replace(needs, previous=False), passes=passes, rank=rank, world_size=world_size)
        run = [batch for epoch in range(3) for batch in flat(made.epoch(epoch))]
        same = [batch for epoch in range(3) for batch in flat(plain.epoch(epoch))]
        assert run[0].previous is None
        for now, alone in zip(run, same, strict=True):
            assert torch.equal(now.x, alone.x)
            assert torch.equal(now.index, alone.index)
        differ = []
        for before, now in pairwise(run):
            pixels, labels = now.previous
            assert torch.equal(labels, before.y)
            assert pixels.shape == before.x.shape
            differ.append((pixels != before.x).flatten(1).any(dim=1))
            for picture, index in zip(pixels, before.index, strict=True):  # a shifted, perhaps mirrored part of it
                seen = set(coded.train.images[index][0].flatten().tolist()) | {0}
                assert set(picture[0].round().flatten().tolist()) <= seen
        assert torch.cat(differ).double().mean() > 0.9  # 1 of 50 is augmented alike by chance


def test_the_previous_batch_is_the_same_wherever_the_run_stopped(coded):
    made = loader(coded, GROUPED)
    run = [batch for epoch in range(2) for batch in flat(made.epoch(epoch))]
    for at in (1, 12, 13, 14, 25):
        resumed = next(iter(loader(coded, GROUPED).epoch(at // 13, start=at % 13)))[0]
        assert resumed.previous is not None
        assert_same(resumed, run[at])


@pytest.mark.gpu
def test_batches_on_the_gpu_are_those_of_the_cpu(coded):
    on_gpu = [b for epoch in range(2) for b in flat(loader(coded, GROUPED, device="cuda").epoch(epoch))]
    on_cpu = [b for epoch in range(2) for b in flat(loader(coded, GROUPED).epoch(epoch))]
    for one, other in zip(on_gpu, on_cpu, strict=True):
        for a, b in zip(parts(one), parts(other), strict=True):
            assert a.is_cuda
            torch.testing.assert_close(a.cpu(), b)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"augment": "crop_flop"},
            r"`augment` must not be 'crop_flop'; did you mean 'crop_flip'\?",
        ),
        (
            {"augment": "resized_crop_flip"},
            "`augment` is 'resized_crop_flip', ",
        ),
        ({"batch_size": 0}, "`batch_size` is 0, but must be a positive multiple of world_size x passes = 1 x 1"),
        (
            {"batch_size": 12, "passes": 5},
            "`batch_size` is 12, but must be a positive multiple of world_size x passes = 1 x 5",
        ),
        (
            {"needs": Needs(group=4), "batch_size": 10},
            "`batch_size` is 10, but must be .*images of a group x world_size x passes = 4 x 1 x 1: use 8 or 12",
        ),
        ({"rank": 2, "world_size": 2}, "passes=1, rank=2, world_size=2: no such share of a step"),
        ({"workers": -1}, "`workers` must be at least 0, not -1"),
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
    with pytest.raises(ValueError, match="one label per image, not 1 for 2"):
        Split(torch.tensor([0]), images=torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
