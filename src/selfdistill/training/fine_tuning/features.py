"""The features of a frozen backbone: computed once, kept, and what a head is then trained on in seconds."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selfdistill.config.train_config import ResolvedTrainConfig
from selfdistill.data import ImageData
from selfdistill.data.augment import Policy
from selfdistill.data.loading import eval_batches, view_batches
from selfdistill.evaluation.images import read_features
from selfdistill.files import read_cache, write_cache
from selfdistill.method import Needs
from selfdistill.progress import track

VIEWS = 8
"""Augmented views of each training image, at most; their features fill 1 GiB at most."""

_BYTES = 2**30
_FORMAT = 1


@dataclass(frozen=True)
class Features:
    """What a frozen backbone makes of a set, float32 on the CPU.

    Attributes:
        views: ``(V, N, ...)``, of augmented training images.
        plain: ``(N, ...)``, of the training images as they are.
        test: ``(M, ...)``, of the test images.
        val: ``(K, ...)``, of the validation images, if there are any.
    """

    views: Tensor
    plain: Tensor
    test: Tensor
    val: Tensor | None = None


def trains_on_features(recipe: ResolvedTrainConfig, needs: Needs) -> bool:
    """Whether a training is one of the head alone, by a method that reads nothing before the head."""
    inside = needs.stages or needs.peer or needs.passes > 1 or needs.dropout_at is not None
    return recipe.freeze == "backbone" and not inside


def frozen_features(
    recipe: ResolvedTrainConfig,
    data: ImageData,
    model: nn.Module,
    head: str,
    *,
    batch_size: int,
    device: torch.device,
    workers: int,
) -> Features:
    """Return the features of all images, from ``data_root/cache`` if they are kept there, otherwise computed and kept.

    They belong to the images, their augmentation and the backbone's weights: where one of these is another, they are
    computed anew, and the old file stays. It may be deleted at any time.

    Args:
        model: on the device; its backbone is not trained.

    Warns:
        UserWarning: they could not be kept, and will be computed again.
    """
    file = Path(recipe.data_root) / "cache" / f"{feature_key(recipe, data, model, head)}.features"
    if (kept := _read(file)) is not None:
        return kept
    settings: dict[str, Any] = {"batch_size": batch_size, "device": device, "workers": workers}

    def read(batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        return read_features(model, batches, head=head).features

    plain = read(track(eval_batches(data.train, data, **settings), "computing features", 0))
    policy = Policy(recipe.auto_augment, recipe.erasing)
    alike = recipe.augment == "none" and policy.changes_nothing
    count = 1 if alike else max(1, min(VIEWS, _BYTES // (plain.numel() * 4)))
    views = torch.stack(
        [
            read(view_batches(data, view, augment=recipe.augment, policy=policy, resize=recipe.resize, **settings))
            for view in track(range(count), "computing features of augmented views", count)
        ]
    )
    val = None if data.val is None else read(eval_batches(data.val, data, **settings))
    made = Features(views, plain, read(eval_batches(data.test, data, **settings)), val)
    _keep(made, file)
    return made


def feature_key(recipe: ResolvedTrainConfig, data: ImageData, model: nn.Module, head: str) -> str:
    """Name what the features depend on: a hash of the images, how they are prepared, and the backbone's weights."""
    augment = (recipe.augment, recipe.auto_augment, recipe.erasing)
    images = (data.image_size, data.mean, data.std, vars(data.resizing))
    setting = (_FORMAT, VIEWS, *images, augment, recipe.resize, recipe.model)
    digest = hashlib.sha256(json.dumps((setting, data.fingerprint), sort_keys=True).encode())
    for name, value in model.state_dict().items():
        if not name.startswith(f"{head}."):
            digest.update(name.encode() + value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _read(file: Path) -> Features | None:
    """Return what a file holds; None if it is not there or damaged."""
    from safetensors.torch import load

    content = read_cache(file)
    return None if content is None else Features(**load(content))


def _keep(features: Features, file: Path) -> None:
    from safetensors.torch import save

    write_cache(file, save({name: value.contiguous() for name, value in vars(features).items() if value is not None}))
