"""Hugging Face's Trainer: its loss is the distiller's, what it saves is the bare model.

trainer = DistillerTrainer(SelfDistiller(model, SDDropout()), TrainingArguments("out"), train_dataset=train)
trainer.train()
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from selfdistill.distiller import SelfDistiller
from selfdistill.integrations.batches import EXTRAS, as_batch
from selfdistill.losses import check_labels, cross_entropy
from selfdistill.network import call, logits_of


class DistillerTrainer(Trainer):
    """Train a distiller with Hugging Face's Trainer.

    ``trainer.model`` is the bare model: it is evaluated, and checkpoints hold it as ``from_pretrained`` reads it. The
    method's own parameters are trained with it and lie beside it in ``method.pt``, for resuming. Each term is logged by
    name, unweighted: the mean over the images since the last log. With gradient accumulation the loss is the mean over
    all images of the step, however they are split. Starts with ``torchrun`` on several devices; FSDP, DeepSpeed and
    several GPUs in one process are refused.

    A batch is a mapping with ``"labels"``. What methods need besides stands in it as ``"pair"`` (a mapping of the
    model's arguments), ``"views"`` (a tuple of such), ``"index"`` and ``"previous"``, put there by the data collator.

    Args:
        distiller: what to train.
        args: as of ``transformers.Trainer``, as are all further arguments. Without it ``tmp_trainer`` is written to.

    Raises:
        ValueError: training arguments or a model that would not train as they say.

    Example:
        >>> import tempfile
        >>> import transformers as hf
        >>> from selfdistill import SDDropout
        >>> config = hf.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        ...                       image_size=8, patch_size=4, num_labels=3)
        >>> images = [{"pixel_values": torch.randn(3, 8, 8), "labels": i % 3} for i in range(6)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     args = TrainingArguments(folder, max_steps=1, logging_steps=1, report_to="none", use_cpu=True)
        ...     distiller = SelfDistiller(hf.ViTForImageClassification(config), SDDropout())
        ...     trainer = DistillerTrainer(distiller, args, train_dataset=images)
        ...     _ = trainer.train()  # doctest: +ELLIPSIS
        ...     sorted({"loss", "ce", "sdd"} & set(trainer.state.log_history[0]))
        {...}
        ['ce', 'loss', 'sdd']
    """

    def __init__(
        self,
        distiller: SelfDistiller,
        args: TrainingArguments | None = None,
        *,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: Callable[..., dict[str, float]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        preprocess_logits_for_metrics: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        super().__init__(
            model=distiller.model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )
        _check(self)
        self.distiller = distiller.to(self.args.device)
        # The base class then counts the labels of a whole optimiser step, and leaves the loss's scale to us.
        self.model_accepts_loss_kwargs = True
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the distiller's loss in training, the bare model's clean cross-entropy in evaluation."""
        batch = as_batch(inputs)
        if not model.training:
            logits = logits_of(call(model, batch.x))
            check_labels(logits, batch.y, values=batch.y.device.type == "cpu")
            loss = cross_entropy(logits, batch.y)
            return (loss, {"loss": loss, "logits": logits}) if return_outputs else loss
        epoch_end = (int(self.state.epoch or 0) + 1) / self.state.num_train_epochs
        self.distiller.set_progress(self.state.global_step / self.state.max_steps, min(1.0, epoch_end))
        loss, logits, terms = model(batch.x, batch.y, batch.views, batch.pair, batch.index, batch.previous)
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0) + value * len(batch.y)
            self._counts[name] = self._counts.get(name, 0) + len(batch.y)
        if num_items_in_batch is not None:
            # This pass's share of the labels of the whole step: of all processes, whose gradients DDP averages.
            loss = loss * (batch.y.ne(-100).sum() / num_items_in_batch)
            if self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes
        return (loss, {"loss": loss, "logits": logits}) if return_outputs else loss

    def create_optimizer(self, *args: Any) -> torch.optim.Optimizer:
        """Make the base class's optimiser, and add the method's own parameters by the same rules.

        Raises:
            ValueError: ``optimizers=`` was given and leaves them out.
        """
        given = self.optimizer is not None
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args)
        known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        method = self.distiller.method
        new = {n: p for n, p in method.named_parameters() if p.requires_grad and id(p) not in known}
        if given and new:
            raise ValueError(f"optimizers= leaves out parameters of {method!r}; make it of distiller.parameters()")
        decayed = set(self.get_decay_parameter_names(method))
        for names, decay in ((new.keys() & decayed, self.args.weight_decay), (new.keys() - decayed, 0.0)):
            if names:
                optimizer.add_param_group({"params": [new[name] for name in sorted(names)], "weight_decay": decay})
        return optimizer

    def log(self, logs: dict[str, float], *args: Any) -> None:
        """Add the means of the terms since the last log to the training's loss."""
        if "loss" in logs and self._sums:
            pairs = torch.stack([torch.stack([s, s.new_tensor(self._counts[name])]) for name, s in self._sums.items()])
            sums, counts = self.accelerator.reduce(pairs, "sum").T
            logs |= dict(zip(self._sums, (sums / counts).tolist(), strict=True))
            self._sums, self._counts = {}, {}
        super().log(logs, *args)

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> AbstractContextManager[Any]:
        """Evaluate the bare model in the precision that the distiller is trained in."""
        context: AbstractContextManager[Any] = self.accelerator.autocast()
        return context

    def _wrap_model(self, model: nn.Module, training: bool = True, dataloader: Any = None) -> nn.Module:
        """Train the distiller, in DDP where there are several processes; evaluate the bare model."""
        if not training or self.accelerator.unwrap_model(model, keep_torch_compile=False) is self.distiller:
            return model
        wrapped: nn.Module = self.accelerator.prepare_model(self.distiller)
        return wrapped

    def _set_signature_columns_if_needed(self) -> None:
        """Let what methods need pass the filter of unused columns."""
        super()._set_signature_columns_if_needed()
        columns: list[str] = self._signature_columns  # type: ignore[assignment]
        columns += [name for name in EXTRAS if name not in columns]

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Save the method's own parameters and memory with the rest of what a training resumes from."""
        super()._save_optimizer_and_scheduler(output_dir)
        state, path = self.distiller.method.state_dict(), _method_file(output_dir, self.args.process_index)
        if self.args.process_index > 0:  # each process has a memory of its own; the parameters are the same everywhere
            state = {name: value for name, value in state.items() if name.endswith("_extra_state")}
        if state:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, path)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or not self.distiller.method.state_dict():
            return
        if not _method_file(checkpoint).is_file():
            raise ValueError(
                f"{checkpoint} holds no method.pt to resume {self.distiller.method!r} from; to start the method anew, "
                "load the model with from_pretrained and do not resume"
            )
        state: dict[str, Any] = {}
        for path in (_method_file(checkpoint), _method_file(checkpoint, self.args.process_index)):
            if path.is_file():
                state |= torch.load(path, map_location="cpu", weights_only=True)
        self.distiller.method.load_state_dict(state)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the model as ``from_pretrained`` does: the file's names need not be the model's own, as in a ViT."""
        if isinstance(self.model, PreTrainedModel):
            self.model.load_state_dict(type(self.model).from_pretrained(resume_from_checkpoint).state_dict())
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        assert self.state.best_model_checkpoint is not None
        self._load_from_checkpoint(self.state.best_model_checkpoint)


def _check(trainer: DistillerTrainer) -> None:
    if trainer.args.label_smoothing_factor != 0:
        raise ValueError("label_smoothing_factor is not read here; add LabelSmoothing() to the method")
    problem = getattr(getattr(trainer.model, "config", None), "problem_type", None)
    if problem in ("regression", "multi_label_classification"):
        raise ValueError(f"the model's problem_type is {problem!r}; methods teach one class an example")
    if trainer.args.n_gpu > 1:
        raise ValueError("one process trains on one GPU; start it with torchrun, or set CUDA_VISIBLE_DEVICES")
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ValueError("FSDP and DeepSpeed are not supported; start it with torchrun, without them")


def _method_file(folder: str, process: int = 0) -> Path:
    return Path(folder) / (f"method_{process}.pt" if process else "method.pt")
