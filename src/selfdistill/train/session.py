"""What one optimiser step needs, put together from a recipe; and the step itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from selfdistill.data import ImageData, TrainLoader, eval_batches
from selfdistill.data.cache import with_cache
from selfdistill.data.decode import cpu_count
from selfdistill.distiller import SelfDistiller, StepOutput
from selfdistill.errors import ArgumentError
from selfdistill.method import Batch
from selfdistill.methods import parse_method
from selfdistill.models import build
from selfdistill.train import random_state
from selfdistill.train.recipe import SMALL, Recipe
from selfdistill.train.schedule import learning_rate

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.wrappers import _FabricModule

_PATIENCE = timedelta(hours=6)  # the other ranks wait while rank 0 evaluates


@dataclass(frozen=True)
class Session:
    """A training, ready for its first step.

    Attributes:
        recipe: resolved.
        data: what is trained on.
        fabric: devices, processes, precision.
        distiller: the distiller itself, whose state is saved.
        module: the distiller as it is called: compiled, wrapped by DDP and by the precision.
        optimizer: SGD over all of the distiller's parameters.
        loader: this process's batches.
        workers: processes that decode image files.
    """

    recipe: Recipe
    data: ImageData
    fabric: "Fabric"
    distiller: SelfDistiller
    module: "_FabricModule"
    optimizer: torch.optim.Optimizer
    loader: TrainLoader
    workers: int

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.fabric.device

    @property
    def eval_batch_size(self) -> int:
        """Images of one pass without gradients; measured on a CPU, 512 take twice as long an image as 128."""
        if self.data.image_size > SMALL:
            return 64
        return 128 if self.device.type == "cpu" else 1024

    def test_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the test images and their labels, as the network takes them."""
        return eval_batches(
            self.data.test,
            self.data,
            batch_size=self.eval_batch_size,
            device=self.device,
            workers=self.workers,
        )

    def rate(self, position: int) -> float:
        """Return the learning rate of the optimiser step that follows ``position`` steps of the whole run."""
        recipe = self.recipe
        assert recipe.lr is not None
        return learning_rate(
            position / self.loader.steps,
            epochs=recipe.epochs,
            lr=recipe.lr,
            schedule=recipe.schedule,
            milestones=recipe.milestones,
            gamma=recipe.gamma,
            warmup_epochs=recipe.warmup_epochs,
        )

    def step(self, batches: tuple[Batch, ...], position: int) -> list[StepOutput]:
        """Take one optimiser step: a pass for each batch, each weighted by its share of the images.

        Args:
            batches: this process's passes of the step.
            position: optimiser steps of the whole run before this one.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(position)
        if self.distiller.method.needs.progress:
            epochs, steps = self.recipe.epochs, self.loader.steps
            self.distiller.set_progress(position / (epochs * steps), (position // steps + 1) / epochs)
        images = sum(len(batch.y) for batch in batches)
        outputs: list[StepOutput] = []
        for batch in batches:
            last = len(outputs) == len(batches) - 1
            if self.recipe.compile:
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            with self.fabric.no_backward_sync(self.module, enabled=not last):
                output = self.module(batch.x, batch.y, batch.views, batch.pair, batch.index, batch.previous)
                self.fabric.backward(output.loss if len(batches) == 1 else output.loss * (len(batch.y) / images))
            # Detached, so that the pass's memory is free before the next one; a CUDA graph writes over its own outputs.
            kept = StepOutput(output.loss.detach(), output.logits.detach(), output.terms)
            outputs.append(tree_map(torch.clone, kept) if self.recipe.compile else kept)
        if self.recipe.clip is not None:
            # A norm that is not finite is found by the meters, without waiting for the device here.
            self.fabric.clip_gradients(self.module, self.optimizer, max_norm=self.recipe.clip, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return outputs


def make_fabric(recipe: Recipe, *, devices: int = 1, nodes: int = 1, accelerator: str = "auto") -> "Fabric":
    """Return Fabric for so many devices; ``"auto"`` is a CUDA device if there is one, otherwise the CPU.

    Raises:
        ValueError: a number below 1, or more devices than there are.
    """
    # Here, because Lightning takes seconds to import: reading a finished run should not wait for it.
    from lightning.fabric import Fabric
    from lightning.fabric.strategies.ddp import DDPStrategy

    for name, value in (("devices", devices), ("nodes", nodes)):
        if value < 1:
            raise ArgumentError(name, f"must be at least 1, not {value}")
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and devices > torch.cuda.device_count():
        raise ArgumentError("devices", f"is {devices}, but this machine has {torch.cuda.device_count()} CUDA device(s)")
    strategy: Any = "auto"
    if devices * nodes > 1:
        # Rank 0's BatchNorm statistics are the model's, whether they are sent round before each pass or not.
        strategy = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True, timeout=_PATIENCE)
    return Fabric(
        accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=strategy, precision=recipe.precision
    )


def assemble(recipe: Recipe, data: ImageData, fabric: "Fabric") -> Session:
    """Build model, distiller, optimiser and loader; afterwards the random state is that of the run's first step.

    Args:
        recipe: resolved (``recipe.resolve(data)``).
        data: what to train on.
        fabric: launched.

    Raises:
        ValueError: the model, the method or the head cannot be made as the recipe says.
    """
    assert recipe.model is not None
    assert recipe.batch_size is not None
    data = cached(recipe, data)
    random_state.seed_all(recipe.seed)
    model = build(
        recipe.model,
        len(data.classes),
        width=recipe.width,
        features=recipe.features,
        head_layers=recipe.head_layers,
        weights=recipe.weights,
    )
    probe = torch.randn(2, 3, data.image_size, data.image_size, generator=torch.Generator().manual_seed(0))
    distiller = SelfDistiller(
        model, parse_method(recipe.method), head=recipe.head, stages=recipe.stages, example_input=probe
    )
    if recipe.channels_last:
        distiller.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        distiller.parameters(),
        lr=1.0,  # set before each step
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        fused=True,
    )
    whole = compile_passes(distiller, fabric.device, processes=fabric.world_size) if recipe.compile else distiller
    module, wrapped = fabric.setup(whole, optimizer)
    workers = min(8, cpu_count()) if recipe.workers is None else recipe.workers
    loader = TrainLoader(
        data,
        distiller.method.needs,
        batch_size=recipe.batch_size,
        passes=recipe.passes_on(fabric.world_size),
        seed=recipe.seed,
        augment=recipe.augment,
        resize=recipe.resize,
        device=fabric.device,
        workers=workers,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        channels_last=recipe.channels_last,
    )
    random_state.seed_all(random_state.rank_seed(recipe.seed, fabric.global_rank))
    return Session(recipe, data, fabric, distiller, module, wrapped, loader, workers)


def cached(recipe: Recipe, data: ImageData) -> ImageData:
    """Return the images with their decoded files, which are made where the recipe wants them and they are not there.

    Raises:
        ValueError: a file cannot be decoded.
        OSError: they cannot be written, or there is too little room for them.
    """
    resize = recipe.resolve(data).resize if recipe.cache else None
    return data if resize is None else with_cache(data, resize, Path(recipe.data_root) / "cache")


def compile_passes(distiller: SelfDistiller, device: torch.device, *, processes: int = 1) -> nn.Module:
    """Return the distiller compiled for each batch shape by itself: of a whole batch, and of an epoch's last.

    On one GPU the passes are recorded as CUDA graphs, for small images leave it waiting for launches; what they give
    out is written over by the next pass. DDP's communication does not go into them.

    Args:
        distiller: whose head is known.
        device: where it is.
        processes: of the training.
    """
    mode = "reduce-overhead" if device.type == "cuda" and processes == 1 else None
    return cast(nn.Module, torch.compile(distiller, dynamic=False, mode=mode))
