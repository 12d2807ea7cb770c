"""One batch, however a data loader hands it over."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from selfdistill.method import Batch, Input

LABELS = "labels"
"""The key of the labels in a mapping of keyword arguments (Hugging Face)."""

EXTRAS = ("views", "pair", "index", "previous")
"""The keys of what methods need besides."""

_FIELDS = tuple(field.name for field in fields(Batch))


def as_batch(batch: Any) -> Batch:
    """Return ``batch`` as a :class:`selfdistill.Batch`.

    Args:
        batch: a :class:`selfdistill.Batch`; ``(x, y)``; a mapping ``{"x": ..., "y": ...}`` that may hold the other
            fields too; or a mapping of the model's keyword arguments with ``"labels"``, in which ``"views"``,
            ``"pair"`` (mappings of such arguments), ``"index"`` and ``"previous"`` are what methods need besides.

    Raises:
        ValueError: none of these.

    Example:
        >>> import torch
        >>> as_batch({"pixel_values": torch.zeros(2, 3), "labels": torch.tensor([0, 1])}).x
        {'pixel_values': tensor([[0., 0., 0.],
                [0., 0., 0.]])}
    """
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, Mapping):
        if LABELS in batch:
            return _from_arguments(batch)
        if {"x", "y"} <= set(batch) <= set(_FIELDS):
            return Batch(**batch)
        raise ValueError(
            f"a batch with the keys {', '.join(map(str, batch))}: give {LABELS!r} beside the model's arguments, "
            f"or 'x' and 'y' (and besides only {', '.join(EXTRAS)})"
        )
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return Batch(*batch)
    raise ValueError(f"a batch is (x, y), a mapping or a selfdistill.Batch, not a {type(batch).__name__}")


def _from_arguments(batch: Mapping[str, Any]) -> Batch:
    previous = batch.get("previous")
    if isinstance(previous, Mapping):
        previous = (_inputs(previous), previous[LABELS])
    return Batch(
        x=_inputs(batch),
        y=batch[LABELS],
        views=tuple(_inputs(view) for view in batch.get("views", ())),
        pair=_inputs(batch["pair"]) if batch.get("pair") is not None else None,
        index=batch.get("index"),
        previous=previous,
    )


def _inputs(arguments: Input) -> Input:
    """Return what the model itself reads: without labels it computes no loss of its own."""
    if not isinstance(arguments, Mapping):
        return arguments
    return {name: value for name, value in arguments.items() if name not in (LABELS, *EXTRAS)}
