"""Lightning's Trainer: the distiller as a LightningModule.

module = DistillerModule(SelfDistiller(model, SDDropout()), lambda parameters: torch.optim.SGD(parameters, lr=0.1))
pl.Trainer(max_epochs=10).fit(module, train_loader, test_loader)
"""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from selfdistill.distiller import SelfDistiller
from selfdistill.integrations.batches import as_batch
from selfdistill.method import Batch

_STUDENT = "distiller.model."


class DistillerModule(pl.LightningModule):
    """Train a distiller with Lightning's Trainer.

    Logged are the epoch's means of each term by name, unweighted (``train/ce``, ``train/sdd``, ...), of ``train/loss``,
    and of the bare model's ``val/ce`` and ``val/accuracy`` (``test/...``). A batch is ``(x, y)``, a
    :class:`selfdistill.Batch` or a mapping, see :func:`selfdistill.integrations.batches.as_batch`. Methods that follow
    the training's progress need a Trainer that knows its end: ``max_epochs`` or ``max_steps``.

    Args:
        distiller: what to train. ``distiller.model`` stays yours, and is trained when ``fit`` returns.
        optimizers: a function of the parameters to train, those of the model and the method's own; it returns whatever
            ``configure_optimizers`` may: an optimiser, or with a schedule ``{"optimizer": ..., "lr_scheduler": ...}``.

    Example:
        >>> from selfdistill import SDDropout, SelfDistiller
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        >>> module = DistillerModule(SelfDistiller(model, SDDropout()), lambda p: torch.optim.SGD(p, lr=0.1))
        >>> module.configure_optimizers().param_groups[0]["lr"]
        0.1
    """

    def __init__(self, distiller: SelfDistiller, optimizers: Callable[[Iterable[nn.Parameter]], Any]):
        super().__init__()
        self.distiller = distiller
        self.optimizers_of = optimizers

    def configure_optimizers(self) -> Any:
        """Return the optimiser over all trainable parameters of the distiller."""
        return self.optimizers_of([parameter for parameter in self.distiller.parameters() if parameter.requires_grad])

    def forward(self, x: Any) -> Any:
        """Return the model's own output."""
        return self.distiller(x)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Report the training progress to the method."""
        steps = self.trainer.estimated_stepping_batches
        if 0 < steps < math.inf:
            batches = self.trainer.num_training_batches
            per_epoch = math.inf if batches == math.inf else math.ceil(batches / self.trainer.accumulate_grad_batches)
            epoch_end = (self.trainer.current_epoch + 1) * per_epoch / steps
            self.distiller.set_progress(self.trainer.global_step / steps, min(1.0, epoch_end))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss (Eq. 5) and log it and its terms."""
        given = as_batch(batch)
        loss, _, terms = self.distiller(given.x, given.y, given.views, given.pair, given.index, given.previous)
        self._log_means("train", {"loss": loss.detach(), **terms}, len(given.y))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Score the bare model."""
        self._score("val", as_batch(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Score the bare model."""
        self._score("test", as_batch(batch))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch; Lightning itself does not move frozen dataclasses."""
        if isinstance(batch, Batch):
            return Batch(**super().transfer_batch_to_device(dict(vars(batch)), device, dataloader_idx))
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _score(self, split: str, batch: Batch) -> None:
        loss, logits, _ = self.distiller(batch.x, batch.y)
        labels = batch.y if batch.y.dim() == 1 else batch.y.argmax(1)
        accuracy = (logits.argmax(1) == labels).float().mean()
        self._log_means(split, {"ce": loss, "accuracy": accuracy}, len(labels))

    def _log_means(self, split: str, values: Mapping[str, Tensor], images: int) -> None:
        named = {f"{split}/{name}": value for name, value in values.items()}
        self.log_dict(named, on_step=False, on_epoch=True, sync_dist=True, batch_size=images)


def student_state_dict(checkpoint: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the bare model's ``state_dict`` that is in a checkpoint of a :class:`DistillerModule`.

    Args:
        checkpoint: what Lightning's Trainer saved: its file, or the mapping that is in it.

    Raises:
        ValueError: there is no such model in it.
    """
    saved: Mapping[str, Any] = (
        checkpoint if isinstance(checkpoint, Mapping) else torch.load(checkpoint, map_location="cpu", weights_only=True)
    )
    state = {name.replace("._orig_mod", ""): value for name, value in saved.get("state_dict", {}).items()}
    student = {name.removeprefix(_STUDENT): value for name, value in state.items() if name.startswith(_STUDENT)}
    if not student:
        raise ValueError("not a checkpoint of a DistillerModule: it holds no state_dict with a distiller's model")
    return student
