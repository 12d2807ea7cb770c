"""What one optimiser step of a detector needs, put together from a recipe; and the step itself."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from selfdistill.data.decode import cpu_count
from selfdistill.detect.batches import Batch, BoxLoader
from selfdistill.detect.coco import Coco
from selfdistill.detect.network import Backbone, build_detector
from selfdistill.detect.recipe import DetectRecipe
from selfdistill.detect.schedule import learning_rate
from selfdistill.errors import ArgumentError
from selfdistill.train import random_state
from selfdistill.train.meters import NonFiniteLossError

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.wrappers import _FabricModule

TERMS = ("classifier", "box_reg", "objectness", "rpn_box_reg")
"""The four losses, which are added: of the proposals their class and box, of the anchors whether they hold an object,
and their box."""


@dataclass(frozen=True)
class Session:
    """The training of a detector, ready for its first step.

    Attributes:
        recipe: resolved.
        data: what is trained and measured on.
        fabric: devices, processes, precision.
        detector: the network itself, whose state is saved.
        module: the network as it is called: wrapped by DDP.
        optimizer: SGD over the trained parameters.
        loader: this process's batches.
        workers: processes that decode image files.
    """

    recipe: DetectRecipe
    data: Coco
    fabric: "Fabric"
    detector: FasterRCNN
    module: "_FabricModule"
    optimizer: torch.optim.Optimizer
    loader: BoxLoader
    workers: int

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.fabric.device

    def rate(self, position: int) -> float:
        """Return the learning rate of the optimiser step that follows ``position`` steps of the whole run."""
        recipe = self.recipe
        assert recipe.lr is not None
        assert recipe.drops is not None
        return learning_rate(
            position,
            steps_per_epoch=self.loader.steps,
            lr=recipe.lr,
            drops=recipe.drops,
            gamma=recipe.gamma,
            warmup_steps=recipe.warmup_steps,
        )

    def step(self, batch: Batch, position: int) -> list[float]:
        """Take one optimiser step and return :data:`TERMS`, each the mean over all processes' images.

        Args:
            batch: this process's share of the step.
            position: optimiser steps of the whole run before this one.

        Raises:
            NonFiniteLossError: a term is no longer a number; the step is not taken.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(position)
        losses = self.module(batch.images, batch.targets)
        terms = torch.stack([losses[f"loss_{name}"] for name in TERMS])
        values = self._over_ranks(terms.detach()).tolist()
        for name, value in zip(TERMS, values, strict=True):
            if not math.isfinite(value):
                epoch, step = divmod(position, self.loader.steps)
                clip = "a smaller `clip`" if self.recipe.clip else "`clip=10`"
                raise NonFiniteLossError(
                    f"the term {name!r} was not finite at epoch {epoch + 1}, step {step + 1}; try a lower `lr` (it was "
                    f"{self.recipe.lr:g}) or {clip}"
                )
        self.fabric.backward(terms.sum())
        if self.recipe.clip is not None:
            self.fabric.clip_gradients(self.module, self.optimizer, max_norm=self.recipe.clip, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return values

    def _over_ranks(self, value: Tensor) -> Tensor:
        if self.fabric.world_size == 1:
            return value
        mean = self.fabric.all_reduce(value, reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean


def assemble(recipe: DetectRecipe, data: Coco, backbone: Backbone, fabric: "Fabric") -> Session:
    """Build detector, optimiser and loader; afterwards the random state is that of the run's first step.

    Args:
        recipe: resolved.
        data: what to train on.
        backbone: what the detector starts from.
        fabric: launched.

    Raises:
        ValueError: the batch cannot be shared among the processes, or the warm-up is as long as the training.
    """
    assert recipe.epochs is not None
    random_state.seed_all(recipe.seed)
    detector = build_detector(backbone, recipe, data.classes)
    optimizer = torch.optim.SGD(
        [parameter for parameter in detector.parameters() if parameter.requires_grad],
        lr=1.0,  # set before each step
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    module, wrapped = fabric.setup(detector, optimizer)
    workers = min(8, cpu_count()) if recipe.workers is None else recipe.workers
    loader = BoxLoader(
        data.train.images,
        flip=recipe.flip,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        device=fabric.device,
        workers=workers,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    if recipe.warmup_steps >= (steps := loader.steps * recipe.epochs):
        raise ArgumentError("warmup_steps", f"must be below the training's {steps} step(s), not {recipe.warmup_steps}")
    random_state.seed_all(random_state.rank_seed(recipe.seed, fabric.global_rank))
    return Session(recipe, data, fabric, detector, module, wrapped, loader, workers)
