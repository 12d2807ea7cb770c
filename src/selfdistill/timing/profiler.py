"""Profile a training step: time and memory, from a few steps that are thrown away."""

import copy
import gc
import time
from dataclasses import replace

import torch
from torch import Tensor, nn

from selfdistill.config.training import Precision
from selfdistill.distiller import SelfDistiller
from selfdistill.evaluation.images import PRECISIONS
from selfdistill.method import Batch, Method
from selfdistill.training.classification import compile_distiller


class StepProfiler:
    """A copy of a model in training with a method, past its first step: that one fills the method's memories.

    Args:
        model: a classifier; it is copied, to the batch's device.
        method: it is used up.
        batch: what each step trains on.
        precision: as in a recipe.
        compiled: compile the passes with torch.compile.

    Attributes:
        bytes: what a step takes. On a GPU the most that is allocated during it, weights and momentum included, the
            batch left out. On a CPU the tensors that are kept for the backward pass, each storage once, parameters
            left out.
        extra_parameters: what the method adds to the model in training.

    Raises:
        ValueError: the model cannot be trained with this method, or not on such a batch.
        RuntimeError: likewise.

    Example:
        >>> from selfdistill import SDDropout
        >>> batch = Batch(torch.zeros(4, 8), torch.zeros(4, dtype=torch.int64))
        >>> profiler = StepProfiler(nn.Linear(8, 3), SDDropout(), batch)
        >>> profiler.extra_parameters, profiler.seconds() > 0
        (0, True)
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        batch: Batch,
        *,
        precision: Precision = "32-true",
        compiled: bool = False,
    ) -> None:
        self.device, self.batch, self.dtype = batch.y.device, batch, PRECISIONS[precision]
        before = 0
        if self.device.type == "cuda":
            gc.collect()  # what is freed later would seem to be this step's
            before = torch.cuda.memory_allocated(self.device)
        student = copy.deepcopy(model).to(self.device)
        self.distiller = SelfDistiller(student, method, example_input=batch.x).to(self.device)
        self.module = compile_distiller(self.distiller, self.device) if compiled else self.distiller
        # The rate changes no time, and a small one keeps the weights finite whatever the model.
        self.optimizer = torch.optim.SGD(
            self.distiller.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4, fused=True
        )
        of_all, of_model = (sum(p.numel() for p in part.parameters()) for part in (self.distiller, student))
        self.extra_parameters = of_all - of_model
        self._step(replace(batch, previous=None))  # as in a training's first step
        self.bytes = self._peak() - before if self.device.type == "cuda" else self._kept()

    def seconds(self) -> float:
        """Return the seconds of a step, from an idle device to an idle device."""
        self._wait()
        started = time.perf_counter()
        self._step(self.batch)
        self._wait()
        return time.perf_counter() - started

    def _step(self, batch: Batch) -> None:
        torch.autograd.backward(self._loss(batch))
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _loss(self, batch: Batch) -> Tensor:
        if self.distiller.method.needs.progress:
            self.distiller.set_progress(0.5)
        torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            output = self.module(batch.x, batch.y, batch.views, batch.pair, batch.index, batch.previous)
        loss: Tensor = output.loss
        return loss

    def _peak(self) -> int:
        self._wait()
        torch.cuda.reset_peak_memory_stats(self.device)
        self._step(self.batch)
        self._wait()
        return torch.cuda.max_memory_allocated(self.device)

    def _kept(self) -> int:
        parameters = {parameter.untyped_storage().data_ptr() for parameter in self.distiller.parameters()}
        storages: dict[int, torch.UntypedStorage] = {}  # held, so that no address is given out twice

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                storages[storage.data_ptr()] = storage
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self._loss(self.batch)
        return sum(storage.nbytes() for storage in storages.values())

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
