import torch

from selfdistill.data.randomness import _mix, _signed, draw, generator, hash_key

MASK = (1 << 64) - 1


def splitmix64(z: int) -> int:
    """The finaliser, written in unbounded integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_mix_in_int64_is_the_finaliser_in_unbounded_integers():
    values = [0, 1, 2**31, 2**62 + 12345, 2**63, MASK, 0x0123456789ABCDEF, 0xFEDCBA9876543210]
    mixed = _mix(torch.tensor([_signed(value) for value in values]))
    assert [value & MASK for value in mixed.tolist()] == [splitmix64(value) for value in values]


def test_mix_gives_the_published_sequence():
    """The first outputs of SplitMix64 with seed 1234567, as its author's code prints them."""
    golden, seed = 0x9E3779B97F4A7C15, 1234567
    states = torch.tensor([_signed((seed + (n + 1) * golden) & MASK) for n in range(3)])
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [value & MASK for value in _mix(states).tolist()] == published


def test_a_key_depends_on_each_part_and_on_their_order():
    keys = [hash_key(*parts) for parts in ((), (0,), (0, 0), (0, 1), (1, 0), (-1, 0), (1, 1), (0, 0, 1))]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key <= MASK for key in keys)
    assert generator(MASK).initial_seed() == MASK >> 1


def test_draws_are_uniform():
    """Chi-square of 90,000 draws over 9 values: mean 8, sd 4."""
    counter = torch.arange(10_000)
    for below in (9, 2):
        draws = torch.cat([draw(hash_key(seed, 0, 0, 1), counter, below) for seed in range(9)])
        counts = draws.bincount(minlength=below).double()
        expected = len(draws) / below
        assert len(counts) == below
        assert ((counts - expected) ** 2 / expected).sum() < 30


def test_streams_epochs_views_and_neighbours_are_independent():
    """Chi-square of the 9 x 9 table of two streams: 64 degrees of freedom, sd 11."""
    counter = torch.arange(50_000)
    first = draw(hash_key(7, 0, 0, 0), counter, 9)
    others = {
        "stream": draw(hash_key(7, 0, 0, 1), counter, 9),
        "view": draw(hash_key(7, 0, 1, 0), counter, 9),
        "epoch": draw(hash_key(7, 1, 0, 0), counter, 9),
        "seed": draw(hash_key(8, 0, 0, 0), counter, 9),
        "neighbour": draw(hash_key(7, 0, 0, 0), counter + 1, 9),
    }
    for name, other in others.items():
        counts = (first * 9 + other).bincount(minlength=81).double()
        expected = len(counter) / 81
        assert ((counts - expected) ** 2 / expected).sum() < 64 + 5 * 11, name


def test_a_bound_for_each_counter():
    below = torch.tensor([1, 2, 2**31])
    drawn = torch.stack([draw(hash_key(seed), torch.arange(3), below) for seed in range(200)])
    assert (drawn >= 0).all()
    assert (drawn < below).all()
    assert drawn[:, 1].unique().tolist() == [0, 1]
    assert drawn[:, 2].max() > 2**30
