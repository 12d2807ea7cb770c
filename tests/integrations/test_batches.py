import doctest
from collections import UserDict

import pytest
import torch

from selfdistill import Batch
from selfdistill.integrations import batches
from selfdistill.integrations.batches import as_batch

X, Y, OTHER, INDEX = torch.zeros(2, 3), torch.tensor([0, 1]), torch.ones(2, 3), torch.tensor([5, 7])


def test_a_batch_stays_itself() -> None:
    batch = Batch(X, Y)
    assert as_batch(batch) is batch


@pytest.mark.parametrize("kind", [tuple, list])
def test_pairs(kind: type) -> None:
    batch = as_batch(kind((X, Y)))
    assert batch.x is X
    assert batch.y is Y


def test_the_fields_by_name() -> None:
    batch = as_batch({"x": X, "y": Y, "views": (OTHER,), "pair": OTHER, "index": INDEX, "previous": (OTHER, Y)})
    assert batch == Batch(X, Y, (OTHER,), OTHER, INDEX, (OTHER, Y))


@pytest.mark.parametrize("kind", [dict, UserDict])
def test_keyword_arguments_with_labels(kind: type) -> None:
    def arguments(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        return kind({"pixel_values": pixels, "mask": X, "labels": Y})

    given = arguments(X)
    given.update(views=(arguments(OTHER),), pair=arguments(OTHER), index=INDEX, previous=arguments(OTHER))
    batch = as_batch(given)
    other = {"pixel_values": OTHER, "mask": X}
    assert batch == Batch({"pixel_values": X, "mask": X}, Y, (other,), other, INDEX, (other, Y))
    assert type(batch.x) is dict
    assert as_batch(arguments(X)) == Batch({"pixel_values": X, "mask": X}, Y)


def test_what_is_no_batch() -> None:
    with pytest.raises(ValueError, match="the keys pixel_values, label: give 'labels' beside the model's arguments"):
        as_batch({"pixel_values": X, "label": Y})
    with pytest.raises(ValueError, match=r"the keys x, y, veiws: .* 'x' and 'y'"):
        as_batch({"x": X, "y": Y, "veiws": ()})
    for wrong in ((X,), (X, Y, INDEX), X):
        with pytest.raises(ValueError, match=r"a batch is \(x, y\), a mapping or a selfdistill.Batch, not a"):
            as_batch(wrong)


def test_the_example_in_the_docstring() -> None:
    assert doctest.testmod(batches).attempted > 0
    assert doctest.testmod(batches).failed == 0
