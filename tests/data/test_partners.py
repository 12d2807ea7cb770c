import pytest
import torch

from selfdistill.data.partners import Partners

LABELS = torch.tensor([2, 0, 1, 0, 2, 2, 0, 2, 3])  # class 1 and class 3 have a single image


@pytest.mark.parametrize("pair", ["any", "other"])
def test_partners_are_of_the_same_class_and_uniform(pair):
    partners = Partners(LABELS, pair, seed=0, device="cpu")
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


def test_partners_are_drawn_independently_and_depend_on_seed_epoch_and_index_alone():
    labels = torch.zeros(400, dtype=torch.int64)
    partners = Partners(labels, "any", seed=5, device="cpu")
    index = torch.arange(400)
    drawn = partners(0, index)
    assert torch.equal(partners(0, index[[7, 300]]), drawn[[7, 300]])
    assert not torch.equal(partners(1, index), drawn)
    assert not torch.equal(Partners(labels, "any", seed=6, device="cpu")(0, index), drawn)
    assert (drawn[drawn] == index).double().mean() < 0.05  # no involution


def test_a_set_without_two_images_of_a_class_is_refused():
    with pytest.raises(ValueError, match="no class has two of the 3 training images: use more images a class"):
        Partners(torch.tensor([0, 1, 2]), "other", seed=0, device="cpu")
