"""Classification, the task of the paper: a model, a self-distillation method and a set of images."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import torch
from torch import Tensor, nn

from selfdistill.config.train_config import SMALL, ResolvedTrainConfig, TrainConfig
from selfdistill.data import ImageData, Split, TrainLoader, eval_batches
from selfdistill.data.augment import Policy
from selfdistill.data.cache import with_cache
from selfdistill.data.decode import cpu_count
from selfdistill.data.fingerprint import Fingerprint
from selfdistill.data.sets import spaced_positions
from selfdistill.data.sources import check_root
from selfdistill.distiller import SelfDistiller
from selfdistill.errors import ArgumentError, NonFiniteError
from selfdistill.evaluation.accuracy import negative_log_likelihood, top_k_accuracy
from selfdistill.evaluation.arrays import checked_logits
from selfdistill.evaluation.images import predict, read_features
from selfdistill.evaluation.predictions import outputs_to_keep, predictions_to_keep
from selfdistill.evaluation.suite import MAX_TRAIN, evaluate, score
from selfdistill.evaluation.temperature import fit_temperature
from selfdistill.losses import balanced_weights
from selfdistill.method import Batch, Method, Needs
from selfdistill.methods import SDDropout, parse_method
from selfdistill.methods.sd_dropout import AutoWeight
from selfdistill.models import build
from selfdistill.models.external import checkpoint_gradients
from selfdistill.network import (
    DIVERGED,
    check_classifier,
    evaluation_mode,
    logits_of,
    nonfinite_weights,
    put_channels_last,
)
from selfdistill.progress import Counter, OnProgress
from selfdistill.records import VALIDATION, Evaluation, RunRecord
from selfdistill.training import fine_tuning
from selfdistill.training.export import save_model
from selfdistill.training.keep_best import BestWeights, epochs_since_best
from selfdistill.training.meters import Loss
from selfdistill.training.mixing import mixing
from selfdistill.training.record import make_record
from selfdistill.training.session import Session, prepare
from selfdistill.training.task import Row, State, Task

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from timm.utils.model_ema import ModelEmaV3


class Classification(Task[Batch]):
    """Train a classifier with a method.

    Args:
        recipe: how to train.
        data: what to train on.
        fabric: launched.

    Attributes:
        distiller: the network that is trained: the model, and what the method adds to it.
        workers: processes that decode image files.

    Raises:
        ValueError: the model, the method or the head cannot be made as the recipe says.
    """

    network_name = "distiller"
    counts = ("train_accuracy",)
    labels: Mapping[str, str] = {"train_accuracy": "train", "val_top1": "val", "test_top1": "test"}

    def __init__(self, recipe: ResolvedTrainConfig, data: ImageData, fabric: "Fabric"):
        self.recipe, self.data, self.fabric = recipe, data, fabric
        self._mix = mixing(recipe)
        self.workers = min(8, cpu_count()) if recipe.workers is None else recipe.workers
        model = build(
            recipe.model,
            len(data.classes),
            width=recipe.width,
            features=recipe.features,
            head_layers=recipe.head_layers,
            weights=recipe.weights,
        )
        shape = (data.channels, data.image_size, data.image_size)
        if ":" in recipe.model:  # not one of ours, which take any size
            check_classifier(model, recipe.model, shape, len(data.classes))
        _check_start(model, recipe)
        method = parse_method(recipe.method)
        if recipe.gradient_checkpointing:
            _check_checkpointing(recipe, method.needs)
            checkpoint_gradients(model)
        # Copied before hooks are added.
        self._average = None if recipe.ema is None else average_of(model, recipe.ema)
        self._best = BestWeights(model) if recipe.keep == "best" else None
        probe = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
        if recipe.sync_batchnorm:  # which reads nothing on a CPU
            model, probe = nn.SyncBatchNorm.convert_sync_batchnorm(model).to(fabric.device), probe.to(fabric.device)
        self.distiller = self._wrapped(model, method, probe)
        channels_last = recipe.channels_last and put_channels_last(self.distiller, fabric.device)
        fine_tuning.freeze(recipe, model, self._head)
        self._features, self._of_features = self._frozen_features()
        head = model.get_submodule(self._head)
        if recipe.linear_probe and model.has_new_head and isinstance(head, nn.Linear):
            self.linear_probe().copy_to(head)
        if self._average is not None:
            self._average.to(fabric.device).set(model)
        parts: dict[str, nn.Module | None] = {"distiller": self.distiller, "average": self._average, "best": self._best}
        modules = {name: module for name, module in parts.items() if module is not None}
        self.network = nn.ModuleDict(modules).to(fabric.device) if len(modules) > 1 else self.distiller
        self.loader = TrainLoader(
            data,
            self.distiller.method.needs,
            batch_size=recipe.batch_size,
            passes=recipe.passes_on(fabric.world_size),
            seed=recipe.seed,
            augment=recipe.augment,
            policy=Policy(recipe.auto_augment, recipe.erasing),
            resize=recipe.resize,
            device=fabric.device,
            workers=self.workers,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            channels_last=channels_last,
            balanced=recipe.balanced_sampling,
            features=None if self._features is None else self._features.views,
        )
        if data.test is data.val:  # shown once
            self.labels = {name: label for name, label in self.labels.items() if name != "test_top1"}
        self._evaluated = {"test_top1": self._scored_network()}
        if self.distiller.peer is not None:
            self._evaluated["peer_top1"] = self.distiller.peer
        self.metrics = (*self._evaluated, *(() if data.val is None else ("val_top1", "val_nll")))

    def _wrapped(self, model: nn.Module, method: Method, probe: Tensor) -> SelfDistiller:
        """Return the distiller; ``probe`` is an example input."""
        recipe, train = self.recipe, self.data.train
        balanced = recipe.class_weights == "balanced"
        distiller = SelfDistiller(
            model,
            method,
            head=recipe.head,
            stages=recipe.stages,
            example_input=probe,
            class_weights=balanced_weights(train.labels, len(self.data.classes)) if balanced else None,
        )
        if (weight := auto_weight(method)) is not None and recipe.auto_weight is not None:
            weight.fix(recipe.auto_weight)
        if recipe.sync_batchnorm:
            nn.SyncBatchNorm.convert_sync_batchnorm(method)
        return distiller

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the images."""
        return self.data.fingerprint

    @property
    def model(self) -> nn.Module:
        """The student, or the moving average of its weights."""
        return self.distiller.model if self._average is None else self._average.module

    @property
    def _head(self) -> str:
        assert self.distiller.head is not None  # found with the example input
        return self.distiller.head

    def _frozen_features(self) -> tuple[fine_tuning.Features | None, SelfDistiller | None]:
        """Return the features of a frozen backbone, and what trains the head on them; None where it needs images."""
        recipe, distiller = self.recipe, self.distiller
        if not fine_tuning.trains_on_features(recipe, distiller.method.needs):
            return None, None
        distiller.to(self.fabric.device)
        features = fine_tuning.frozen_features(
            recipe,
            self.data,
            distiller.model,
            self._head,
            batch_size=self.eval_batch_size,
            device=self.fabric.device,
            workers=self.workers,
        )
        head = self._alone(distiller.model)
        return features, SelfDistiller(head, distiller.method, head="head", class_weights=distiller.class_weights)

    def _alone(self, model: nn.Module) -> nn.Module:
        """Return the head of a model as a network of its own."""
        return nn.Sequential(OrderedDict(head=model.get_submodule(self._head)))

    def _scored_network(self) -> nn.Module:
        """Return the network that is measured: on features, the head alone."""
        return self.model if self._features is None else self._alone(self.model)

    def linear_probe(self) -> fine_tuning.LinearProbe:
        """Return the linear probe of the training images; kept beside their decoded files, if those are."""
        cache, name = self.data.train.cache, "-balanced" if self.recipe.balances_classes else ""
        file = None if cache is None else cache.file.with_name(f"{self.feature_key()}{name}.probe")
        if file is None:
            return self._fit_linear_probe()
        if (known := fine_tuning.LinearProbe.read(file)) is None:
            known = self._fit_linear_probe()
            known.keep(file)
        return known

    def _fit_linear_probe(self) -> fine_tuning.LinearProbe:
        images = self.data.train.spaced(fine_tuning.MAX_IMAGES)
        if self._features is None:
            features = self._read(images)
        else:
            features = self._features.plain[spaced_positions(len(self.data.train), fine_tuning.MAX_IMAGES)]
        return fine_tuning.fit_linear_probe(
            features.flatten(1), images.labels, len(self.data.classes), balanced=self.recipe.balances_classes
        )

    @property
    def trains_on_features(self) -> bool:
        """Whether the head alone is trained, on features that are computed once."""
        return self._features is not None

    def test_features(self) -> Tensor:
        """Return the features ``(M, D)`` of the test images, on the CPU."""
        return (self._read(self.data.test) if self._features is None else self._features.test).flatten(1)

    def feature_key(self) -> str:
        """Name what the features of a network depend on that is not trained yet: its images and its weights."""
        return fine_tuning.feature_key(self.recipe, self.data, self.distiller.model, self._head)

    def _read(self, split: Split) -> Tensor:
        self.distiller.to(self.fabric.device)
        return read_features(self.distiller.model, self._in_order(split), head=self._head).features

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return the recipe's optimiser, with rates of their own for pretrained layers."""
        groups = fine_tuning.parameter_groups(self.recipe, self.distiller, self.distiller.model, self._head)
        return fine_tuning.make_optimizer(self.recipe, groups)

    def set_training_mode(self) -> None:
        """Put the network into training mode, but for what stays as it was pretrained."""
        fine_tuning.set_training_mode(self.recipe, self.distiller, self.distiller.model, self._head)

    @property
    def eval_batch_size(self) -> int:
        """Images of one forward pass without gradients; on a CPU, 512 take twice as long per image as 128."""
        if self.data.image_size > SMALL:
            return 64
        return 128 if self.fabric.device.type == "cpu" else 1024

    def callable_network(self) -> nn.Module:
        """Return the distiller, compiled if the recipe says so."""
        distiller = self.distiller if self._of_features is None else self._of_features
        if not self.recipe.compile:
            return distiller
        return compile_distiller(distiller, self.fabric.device, processes=self.fabric.world_size)

    def loss(self, module: nn.Module, batch: Batch, position: int) -> Loss:
        """Return the loss of a micro-batch, and how many of its images were classified correctly."""
        if self.distiller.method.needs.progress:
            epochs, steps = self.recipe.epochs, self.loader.steps
            self.distiller.set_progress(position / (epochs * steps), (position // steps + 1) / epochs)
        if self.recipe.compile:
            torch.compiler.cudagraph_mark_step_begin()
        x, y = (batch.x, batch.y) if self._mix is None else self._mix(batch.x, batch.y)
        output = module(x, y, batch.views, batch.pair, batch.index, batch.previous)
        most = y if y.ndim == 1 else y.argmax(dim=1)
        hits = (output.logits.detach().argmax(dim=1) == most).sum()
        return Loss(output.loss, output.terms, {"train_accuracy": hits}, len(batch.y))

    def after_step(self, position: int) -> None:
        """Bring the moving average of the weights up to date."""
        if self._average is not None:
            self._average.update(self.distiller.model, step=position + 1)

    def test_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the test images and their labels, as the network takes them."""
        return self._in_order(self.data.test)

    def _scored(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what the networks read whose accuracy is measured after an epoch, with the labels."""
        if self._features is None:
            yield from self.test_batches()
        else:
            for x, y in zip(self._features.test.split(4096), self.data.test.labels.split(4096), strict=True):
                yield x.to(self.fabric.device), y.to(self.fabric.device)

    def _in_order(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        return eval_batches(
            split,
            self.data,
            batch_size=self.eval_batch_size,
            device=self.fabric.device,
            workers=self.workers,
        )

    def evaluate(self, progress: OnProgress, epoch: int) -> dict[str, float | None]:
        """Return the accuracy on the test images, that of a peer, and what validation images say, if there are any."""
        found: dict[str, float | None] = {
            name: self._accuracy(network, progress) for name, network in self._evaluated.items()
        }
        return found | self._validate(epoch)

    def _validate(self, epoch: int) -> dict[str, float | None]:
        if self.data.val is None:
            return {}
        batches = self._validation_batches(self.data.val)
        logits, labels = predict(self._evaluated["test_top1"], batches, precision=self.recipe.precision)
        if not bool(logits.amax(dim=1).isfinite().all()):
            raise NonFiniteError(f"logits of validation images are not finite numbers; {DIVERGED}")
        accuracy, nll = top_k_accuracy(logits, labels), negative_log_likelihood(*checked_logits(logits, labels))
        confidence = float(logits.double().softmax(dim=1).amax(dim=1).mean())
        self.distiller.set_gap(confidence - accuracy, self.recipe.eval_every / self.recipe.epochs)
        if self._best is not None:
            self._best.offer(self.model, epoch, accuracy, nll)
        return {"val_top1": accuracy, "val_nll": nll}

    def _validation_batches(self, val: Split) -> Iterable[tuple[Tensor, Tensor]]:
        if self._features is None or self._features.val is None:
            return self._in_order(val)
        return [(self._features.val.to(self.fabric.device), val.labels.to(self.fabric.device))]

    def _calibrate(self, model: nn.Module, run: Path) -> float | None:
        """Keep what the network says of the validation images, and return the temperature; None without them."""
        if self.data.val is None:
            return None
        network = model if self._features is None else self._alone(model)
        outputs = outputs_to_keep(*predict(network, self._validation_batches(self.data.val)), self.data.classes)
        outputs.save(run, VALIDATION)
        return fit_temperature(outputs.logits, outputs.labels)

    def is_done(self, rows: list[Row]) -> bool:
        """Whether the last ``patience`` epochs were no better on the validation images."""
        return self.recipe.patience is not None and epochs_since_best(rows) >= self.recipe.patience

    def _accuracy(self, network: nn.Module, progress: OnProgress) -> float:
        total = len(self.data.test)
        count = Counter(progress, "measuring test accuracy", total)
        hits, broken = torch.zeros(2, dtype=torch.int64, device=self.fabric.device)
        with evaluation_mode(network), torch.inference_mode(), self.fabric.autocast():
            for x, y in self._scored():
                logits = logits_of(network(x))
                hits += (logits.argmax(dim=1) == y).sum()
                broken += (~logits.amax(dim=1).isfinite()).sum()
                count(len(y))
        if broken:
            raise NonFiniteError(f"the logits of {broken} of {total} test images are not finite numbers; {DIVERGED}")
        return int(hits) / total

    def finish(self, run: Path, state: State) -> RunRecord:
        """Evaluate the student, write it and its predictions into the run's folder, and return the record."""
        started = time.perf_counter()
        model = self.model if self._best is None else self._best.module
        outputs: list[tuple[Tensor, Tensor]] = []
        evaluation = self._evaluation(model, lambda logits, labels: outputs.append((logits, labels)))
        seconds = time.perf_counter() - started
        save_model(model, self.recipe, self.data, run, self._calibrate(model, run))
        if (kept := predictions_to_keep(*outputs[0], self.data)) is not None:
            kept.save(run)
        weight = auto_weight(self.distiller.method)
        recipe = self.recipe if weight is None else replace(self.recipe, auto_weight=weight.found)
        record = make_record(run.name, recipe, self.data, self.distiller, state, evaluation, seconds)
        if self._best is None:
            return record
        policy = f"epoch that was best on the validation images, {int(self._best.epoch)}"
        return msgspec.structs.replace(record, policy=policy)

    def _evaluation(self, model: nn.Module, on_logits: Callable[[Tensor, Tensor], object]) -> Evaluation:
        if self._features is None:
            return evaluate(
                model,
                self.data,
                device=self.fabric.device,
                batch_size=self.eval_batch_size,
                workers=self.workers,
                precision=self.recipe.precision,
                on_logits=on_logits,
            )
        head, some = self._alone(model), spaced_positions(len(self.data.train), MAX_TRAIN)
        logits, labels = predict(head, self._scored())
        on_logits(logits, labels)
        features, of_train = self._features.plain[some].to(self.fabric.device), self.data.train.labels[some]
        fitted, _ = predict(head, [(features, of_train.to(self.fabric.device))])
        return score(logits, labels, train_n=len(some), train_top1=top_k_accuracy(fitted, of_train))


def assemble(recipe: ResolvedTrainConfig, data: ImageData, fabric: "Fabric") -> Session[Classification]:
    """Build model, distiller, loader and optimiser; afterwards the random state is that of the run's first step.

    Raises:
        ValueError: the model, the method or the head cannot be made as the recipe says.
    """
    data = cache_files(recipe, data)
    return prepare(recipe, fabric, lambda fabric: Classification(recipe, data, fabric))


def auto_weight(method: Method) -> AutoWeight | None:
    """Return the weight of a method that finds its own; None of others."""
    return next((part.auto for part in method.parts if isinstance(part, SDDropout) and part.auto is not None), None)


def cache_files(recipe: TrainConfig, data: ImageData) -> ImageData:
    """Return the images with their decoded files, which are made where the recipe wants them and they are not there.

    Raises:
        ValueError: a file cannot be decoded.
        OSError: they cannot be written, or there is too little room for them.
    """
    resize = recipe.resolve(data).resize if recipe.cache else None
    if resize is None:
        return data
    check_root(Path(recipe.data_root))
    return with_cache(data, resize, Path(recipe.data_root) / "cache")


def _check_start(model: nn.Module, recipe: ResolvedTrainConfig) -> None:
    """Refuse a network that cannot be trained, whatever the method."""
    name = "weights" if recipe.fine_tunes else "model"
    if (bad := nonfinite_weights(model)) is not None:
        raise ArgumentError(name, f"starts from values that are not finite, in {bad!r}: give another")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ArgumentError("model", f"{recipe.model} has no parameter that requires a gradient: nothing would train")


def _check_checkpointing(recipe: ResolvedTrainConfig, needs: Needs) -> None:
    name = "gradient_checkpointing"
    if needs.stages or needs.dropout_at is not None:  # whose modules are not called one by one
        raise ArgumentError(name, f"hides the inner layers that {recipe.method} reads: leave it out")
    if fine_tuning.trains_on_features(recipe, needs):
        raise ArgumentError(name, "saves nothing with `freeze=backbone`: leave it out")


def average_of(model: nn.Module, decay: float) -> "ModelEmaV3":
    r"""Return a moving average of a model's weights and buffers.

    After step t, counted from 0, :math:`\bar w \leftarrow \beta_t \bar w + (1 - \beta_t) w` with
    :math:`\beta_t = \min(\beta, 1 - (1 + t)^{-3/4})`: short trainings are averaged too.

    Args:
        model: to be averaged; copied.
        decay: :math:`\beta` in (0, 1).

    Source:
        timm's ``ModelEmaV3`` with its warm-up.
    """
    from timm.utils.model_ema import ModelEmaV3

    average = ModelEmaV3(model, decay=decay, use_warmup=True, warmup_gamma=1.0, warmup_power=3 / 4)
    return average.requires_grad_(False)


def compile_distiller(distiller: SelfDistiller, device: torch.device, *, processes: int = 1) -> nn.Module:
    """Return the distiller compiled for each batch shape by itself: of a whole batch, and of an epoch's last.

    On one GPU the steps are recorded as CUDA graphs, for small images leave it waiting for launches; what they give
    out is written over by the next one. DDP's communication does not go into them.

    Args:
        distiller: whose head is known.
    """
    mode = "reduce-overhead" if device.type == "cuda" and processes == 1 else None
    return cast(nn.Module, torch.compile(distiller, dynamic=False, mode=mode))
