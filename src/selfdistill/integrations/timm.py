"""timm's training tasks: the distiller as a task, its branches and peers outside the model's weights.

task = DistillerTask(SelfDistiller(model, SDDropout()))
optimizer = timm.optim.create_optimizer_v2(task.get_trainable_module(), opt="sgd", lr=0.1)
result = task(input, target)  # {"loss": ..., "output": ..., "ce": ..., "sdd": ...}
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from timm.models import group_parameters
from timm.task import TrainingTask
from timm.utils.model import unwrap_model
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from selfdistill.distiller import SelfDistiller, StepOutput
from selfdistill.method import Input


class TrainableDistiller(nn.Module):
    """The module that DDP and ``torch.compile`` wrap: a distiller that tells timm's optimisers what its model tells."""

    def __init__(self, distiller: SelfDistiller) -> None:
        super().__init__()
        self.distiller = distiller

    def forward(self, *batch: Any) -> StepOutput:
        """Return the distiller's output."""
        output: StepOutput = self.distiller(*batch)
        return output

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that the model wants undecayed."""
        names: set[str] = getattr(unwrap_model(self.distiller.model), "no_weight_decay", set)()
        return {f"distiller.model.{name}" for name in names}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Return the layer of each parameter, for rates that fall by layers; the method's own are in the last."""
        model = unwrap_model(self.distiller.model)
        layers = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
        return lambda name: int(layers.get(name.removeprefix("distiller.model."), max(layers.values())))


class DistillerTask(TrainingTask):
    """Train a distiller in a loop over timm's tasks.

    ``forward(input, target)`` returns ``{"loss", "output"}`` (the clean logits) and each term by name, unweighted.
    Checkpoints hold the bare model under ``state_dict`` and the method's own parameters and memory under
    ``task_state``; moving averages and evaluation see the bare model alone. Before each step of a method that follows
    the training, call ``task.distiller.set_progress(done, epoch_end)``.

    Args:
        distiller: what to train, on its device.
        device: as for timm's own tasks.
        dtype: as for timm's own tasks.
        verbose: as for timm's own tasks.

    Example:
        >>> from selfdistill import SDDropout, SelfDistiller
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> task = DistillerTask(SelfDistiller(model, SDDropout()))
        >>> list(task(torch.randn(4, 8), torch.tensor([0, 1, 2, 0])))
        ['loss', 'output', 'ce', 'sdd']
        >>> list(task.get_checkpoint_state())
        ['state_dict']
    """

    def __init__(
        self,
        distiller: SelfDistiller,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        verbose: bool = True,
    ):
        super().__init__(device=device, dtype=dtype, verbose=verbose)
        self.trainable_module: nn.Module = TrainableDistiller(distiller)

    @property
    def distiller(self) -> SelfDistiller:
        """The distiller itself."""
        distiller: SelfDistiller = unwrap_model(self.trainable_module).distiller
        return distiller

    def forward(
        self,
        input: Input,
        target: Tensor,
        views: Sequence[Input] = (),
        pair: Input | None = None,
        index: Tensor | None = None,
        previous: tuple[Input, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss, the logits and the terms; arguments as of :meth:`selfdistill.SelfDistiller.forward`."""
        loss, logits, terms = self.trainable_module(input, target, views, pair, index, previous)
        return {"loss": loss, "output": logits, **terms}

    def prepare_distributed(self, device_ids: list[int] | None = None, **ddp_kwargs: Any) -> "DistillerTask":
        """Wrap the whole distiller in DDP."""
        self.trainable_module = DistributedDataParallel(self.trainable_module, device_ids=device_ids, **ddp_kwargs)
        return self

    def compile(  # type: ignore[override]
        self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any
    ) -> nn.Module:
        """Compile training and evaluation; the distiller needs ``head=`` or ``example_input=`` for it."""
        compiled = partial(torch.compile, backend=backend, mode=mode, **compile_kwargs)
        self.eval_model = cast(nn.Module, compiled(self.distiller.model))
        self.trainable_module = cast(nn.Module, compiled(self.trainable_module))
        return self.eval_model

    def get_eval_model(self, module: nn.Module | None = None, ema: bool = False) -> nn.Module | None:
        """Return the bare model, or its moving average."""
        if module is None and not ema and not hasattr(self, "eval_model"):
            return self.distiller.model
        found: nn.Module | None = super().get_eval_model(module=module, ema=ema)
        return found.module if isinstance(found, ModelEmaV3) else found

    def get_clip_parameters(self, exclude_head: bool = False) -> list[nn.Parameter]:
        """Return what gradient clipping covers: the model (its head excluded on request) and the method's own."""
        parameters = list(self.distiller.model.parameters())
        return [*(parameters[:-2] if exclude_head else parameters), *self.distiller.method.parameters()]

    def setup_ema(
        self,
        decay: float = 0.9999,
        use_warmup: bool = False,
        device: torch.device | None = None,
        **kwargs: Any,
    ) -> nn.Module:
        """Keep a moving average of the bare model: branches, peers and memories have none."""
        self.trainable_module_ema = ModelEmaV3(
            self.distiller.model, decay=decay, use_warmup=use_warmup, device=device, **kwargs
        )
        return self.trainable_module_ema

    def update_ema(self, step: int | None = None) -> None:
        """Let the moving average follow the bare model."""
        if self.has_ema():
            self.trainable_module_ema.update(unwrap_model(self.distiller.model), step=step)

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """Return the method's own parameters and memory, empty if it has none."""
        state = {} if ema else self.distiller.method.state_dict()
        return {"method": state} if state else {}

    def load_task_state(
        self, state: dict[str, Any] | None, strict: bool = True, module: nn.Module | None = None, ema: bool = False
    ) -> None:
        """Load what :meth:`get_task_state` returned."""
        if not ema:
            self.distiller.method.load_state_dict((state or {}).get("method", {}), strict=strict)
