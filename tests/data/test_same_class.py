from collections import Counter
from itertools import permutations, product

import pytest
import torch

from selfdistill.data.randomness import draw, hash_key
from selfdistill.data.same_class import GroupSampler, PairSampler

LABELS = torch.tensor([2, 0, 1, 0, 2, 2, 0, 2, 3])  # class 1 and class 3 have a single image


@pytest.mark.parametrize("pair", ["any", "other"])
def test_partners_are_of_the_same_class_and_uniform(pair):
    partners = PairSampler(LABELS, pair, seed=0, device="cpu")
    index = torch.arange(len(LABELS))
    drawn = torch.stack([partners(epoch, index) for epoch in range(4000)])
    assert (LABELS[drawn] == LABELS).all()
    for anchor in (0, 1, 4, 7):
        others = [i for i in range(len(LABELS)) if LABELS[i] == LABELS[anchor] and (pair == "any" or i != anchor)]
        counts = drawn[:, anchor].bincount(minlength=len(LABELS)).double()
        expected = 4000 / len(others)
        assert counts[others].sum() == 4000
        assert ((counts[others] - expected) ** 2 / expected).sum() < 20
    assert (drawn[:, 2] == 2).all()  # alone in its class
    assert (drawn[:, 8] == 8).all()


def test_partners_depend_on_seed_epoch_and_index_alone():
    labels = torch.zeros(400, dtype=torch.int64)
    partners = PairSampler(labels, "any", seed=5, device="cpu")
    index = torch.arange(400)
    drawn = partners(0, index)
    assert torch.equal(partners(0, index[[7, 300]]), drawn[[7, 300]])
    assert not torch.equal(partners(1, index), drawn)
    assert not torch.equal(PairSampler(labels, "any", seed=6, device="cpu")(0, index), drawn)
    assert (drawn[drawn] == index).double().mean() < 0.05  # no involution


def test_pairs_of_a_set_with_one_image_per_class_are_refused():
    with pytest.raises(ValueError, match="no class has two of the 3 training images: use more images per class"):
        PairSampler(torch.tensor([0, 1, 2]), "other", seed=0, device="cpu")


def chi_square(counts, outcomes):
    expected = sum(counts.values()) / len(outcomes)
    assert set(counts) <= set(outcomes)
    return sum((counts[outcome] - expected) ** 2 / expected for outcome in outcomes)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_groups_are_uniform_over_what_the_class_allows(number):
    sampler = GroupSampler(LABELS, number, seed=0, device="cpu")
    index = torch.arange(len(LABELS))
    drawn = torch.stack([sampler(epoch, index) for epoch in range(4000)])  # (4000, 9, number)
    for anchor, label in enumerate(LABELS.tolist()):
        others = [i for i in range(len(LABELS)) if LABELS[i] == label and i != anchor]
        if not others:
            assert (drawn[:, anchor] == anchor).all()  # alone in its class
            continue
        ways = permutations(others, number) if len(others) >= number else product(others, repeat=number)
        counts = Counter(map(tuple, drawn[:, anchor].tolist()))
        assert chi_square(counts, list(ways)) < 30  # at most 23 degrees of freedom


def test_groups_are_drawn_from_what_is_left_of_the_class():
    # The rule, image by image.
    labels, number, seed, epoch = LABELS.tolist(), 3, 7, 5
    expected = []
    for anchor, label in enumerate(labels):
        left = [i for i, other in enumerate(labels) if other == label and i != anchor]
        enough, chosen = len(left) >= number, []
        for nth in range(number):
            if not left:
                chosen.append(anchor)
                continue
            at = int(draw(hash_key(seed, epoch, (1 << 21) + nth), torch.tensor(anchor), len(left)))
            chosen.append(left.pop(at) if enough else left[at])
        expected.append(chosen)
    assert GroupSampler(LABELS, number, seed, device="cpu")(epoch, torch.arange(len(labels))).tolist() == expected


def test_groups_of_a_large_class_are_distinct_and_uniform():
    labels = torch.arange(300) % 2
    index = torch.arange(300)
    drawn = torch.stack([GroupSampler(labels, 5, seed=2, device="cpu")(epoch, index) for epoch in range(100)])
    assert (labels[drawn] == labels[:, None]).all()
    assert (drawn != index[:, None]).all()
    ordered = drawn.sort(dim=2).values
    assert (ordered[..., 1:] != ordered[..., :-1]).all()
    for nth in range(5):  # every image is drawn about 100 times as any anchor's nth image
        counts = drawn[..., nth].flatten().bincount(minlength=300).double()
        assert ((counts - 100) ** 2 / 100).sum() < 300 + 4 * 600**0.5


def test_groups_depend_on_seed_epoch_index_and_place_alone():
    labels = torch.zeros(400, dtype=torch.int64)
    sampler, index = GroupSampler(labels, 3, seed=5, device="cpu"), torch.arange(400)
    drawn = sampler(0, index)
    assert torch.equal(sampler(0, index[[7, 300]]), drawn[[7, 300]])
    partner = PairSampler(labels, "other", seed=5, device="cpu")(0, index)
    others = (
        sampler(1, index),
        GroupSampler(labels, 3, seed=6, device="cpu")(0, index),
        drawn.roll(1, dims=1),
        partner[:, None],
    )
    for other in others:
        assert (drawn == other).double().mean() < 0.02


def test_groups_of_a_set_with_one_image_per_class_are_refused():
    with pytest.raises(ValueError, match="no class has two of the 3 training images: use more images per class"):
        GroupSampler(torch.tensor([0, 1, 2]), 3, seed=0, device="cpu")
