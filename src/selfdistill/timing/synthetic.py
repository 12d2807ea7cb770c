"""One of each method, and batches of noise that bring what a method needs: to try methods out without images."""

import inspect

import torch
from torch import Tensor

from selfdistill import methods
from selfdistill.method import Batch, Method, Needs

SAMPLES = 50_000
"""Training images that the positions of :func:`make_batch` are of: as many as CIFAR has."""

_ARGUMENTS = {"samples": SAMPLES}  # of methods that cannot be made without


def example_methods() -> dict[str, Method]:
    """Return one of each method by name, with its defaults; arguments without a default have an example's value.

    Example:
        >>> list(example_methods().values())[-1]
        SDDropout()
    """
    kinds = {name: getattr(methods, name) for name in dir(methods)}
    return {
        name: kind(
            **{
                argument.name: _ARGUMENTS[argument.name]
                for argument in inspect.signature(kind).parameters.values()
                if argument.default is argument.empty
            }
        )
        for name, kind in kinds.items()
    }


def make_batch(
    needs: Needs,
    *,
    batch_size: int,
    classes: int,
    image_size: int = 32,
    samples: int = SAMPLES,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Batch:
    """Return a batch of noise that brings what a method needs.

    Args:
        needs: of the method; ``Method.needs``.
        batch_size: B, the images of ``x``; the last group is cut short where groups do not fill it.
        classes: C, at least 1.
        image_size: S, of images ``(B, 3, S, S)``.
        samples: the positions are of so many images, at least B.

    Example:
        >>> batch = make_batch(Needs(views=2, group=2, index=True), batch_size=4, classes=10)
        >>> batch.x.shape, len(batch.views), bool((batch.y[::2] == batch.y[1::2]).all()), batch.index.shape
        (torch.Size([4, 3, 32, 32]), 1, True, torch.Size([4]))
    """
    generator = torch.Generator().manual_seed(seed)

    def images() -> Tensor:
        return torch.randn(batch_size, 3, image_size, image_size, generator=generator).to(device)

    groups = -(-batch_size // needs.group)
    of_groups = torch.randint(classes, (groups,), generator=generator)
    y = of_groups.repeat_interleave(needs.group)[:batch_size].to(device)
    index = torch.randperm(samples, generator=generator)[:batch_size].to(device)
    return Batch(
        x=images(),
        y=y,
        views=tuple(images() for _ in range(needs.views - 1)),
        pair=images() if needs.pair is not None else None,
        index=index if needs.index else None,
        previous=(images(), y) if needs.previous else None,
    )
