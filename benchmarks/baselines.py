"""Fine-tuning on few photographs, beside a linear probe, fastai's ``fine_tune`` and timm's usual settings.

uv run python benchmarks/baselines.py --data DIR --weights FILE              5, 10 and 30 images of each class, 3 draws
uv run python benchmarks/baselines.py ... --per-class 5 --draws 1 --only timm "CrossEntropy()"
uv run python benchmarks/baselines.py ... --json baselines.jsonl             a line per training, added as it ends

Every row of a draw is trained on the same images, for as many epochs as our fine-tuning takes by default, and measured
on the same test images, prepared in the same way. What is in the file already is not trained again.

linear probe: scikit-learn's logistic regression on standardised features, C by cross-validation.
fastai: ``vision_learner`` and ``fine_tune`` with its defaults, ``aug_transforms``, batches of 32. Needs fastai.
timm: AdamW at 5e-4 with layer decay 0.75 and weight decay 0.05, cosine with warm-up, RandAugment, random erasing and
    label smoothing, by timm's own factories; BatchNorm is trained.
A method's name: ``selfdistill train`` with its defaults; followed by ", frozen", with ``--freeze backbone``.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData, eval_batches, load_data
from selfdistill.data.decode import read_rgb
from selfdistill.evaluation.images import predict, read_features
from selfdistill.evaluation.suite import score
from selfdistill.models import build
from selfdistill.network import default_device
from selfdistill.records import Evaluation
from selfdistill.training import random_state, train
from selfdistill.training.record import provenance
from selfdistill.training.run import as_pretrained

METHODS = (
    *("CrossEntropy()", "LabelSmoothing()", "Dropout()"),
    *("SDDropout(weight=0.1)", "SDDropout(weight=0.3)", "SDDropout()", "SDDropout(weight='auto')"),
)
FROZEN = ", frozen"
FROZEN_METHODS = tuple(method + FROZEN for method in METHODS)


class Scores(NamedTuple):
    """How good a network is on the test images, and how many training images it has right; shares in [0, 1].

    ``scaled_nll`` is the NLL after temperature scaling, cross-fitted on the test images; ``weight`` what "auto" found.
    """

    top1: float
    nll: float
    ece: float
    train_top1: float
    gap: float | None = None
    scaled_nll: float | None = None
    weight: float | None = None

    @classmethod
    def of(cls, test: Evaluation, train_top1: float, weight: float | None = None) -> Self:
        """Read an evaluation."""
        scaled = None if test.scaled is None else test.scaled.nll
        return cls(test.top1, test.nll, test.ece, train_top1, test.gap, scaled, weight)


@dataclass(frozen=True)
class Row:
    """One network: what made it, on which images, and how good it is; see `Scores`."""

    what: str
    per_class: int
    draw: int
    epochs: int
    steps: int
    top1: float
    nll: float
    ece: float
    train_top1: float
    seconds: float
    gap: float | None = None
    scaled_nll: float | None = None
    weight: float | None = None

    @property
    def key(self) -> tuple[str, int, int, int]:
        """What it is one of."""
        return self.what, self.per_class, self.draw, self.epochs

    def __str__(self) -> str:
        """A line of the table."""
        return (
            f"{self.what:<24}{self.per_class:>4}{self.draw:>4}{self.epochs:>5}{self.steps:>7}"
            f"{self.top1:>9.2%}{self.nll:>8.3f}{self.ece:>8.3f}{self.train_top1:>9.2%}{self.seconds:>8.0f}"
        )


@dataclass(frozen=True)
class Setting:
    """What all rows of a draw share."""

    data: ImageData
    recipe: TrainConfig
    epochs: int
    seed: int

    def model(self) -> nn.Module:
        """The network with its pretrained weights and a new head."""
        assert self.recipe.model is not None
        return build(self.recipe.model, len(self.data.classes), weights=self.recipe.weights).to(default_device())

    @property
    def steps(self) -> int:
        """Optimiser steps of a training in batches of 32."""
        return self.epochs * -(-len(self.data.train) // 32)

    def scored(self, model: nn.Module) -> Scores:
        """Top-1, NLL and ECE on the test images, top-1 on the training images."""
        device = default_device()
        parts = [
            score(*predict(model, eval_batches(part, self.data, batch_size=64, device=device, workers=0)))
            for part in (self.data.test, self.data.train)
        ]
        return Scores.of(parts[0], parts[1].top1)


class Probe(nn.Module):
    """Logits of features that are standardised first."""

    def __init__(self, scaler: Any, fitted: Any):
        super().__init__()
        self.mean, self.scale = (torch.from_numpy(value).float() for value in (scaler.mean_, scaler.scale_))
        self.weight, self.bias = (torch.from_numpy(value).float() for value in (fitted.coef_, fitted.intercept_))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``(B, C)``."""
        return nn.functional.linear((features - self.mean) / self.scale, self.weight, self.bias)


def linear_probe(setting: Setting) -> Scores:
    """scikit-learn's, on the features of the pretrained network."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.preprocessing import StandardScaler

    model, data, device = setting.model(), setting.data, default_device()
    train, test = (
        read_features(model, eval_batches(part, data, batch_size=64, device=device, workers=0))
        for part in (data.train, data.test)
    )
    scaler = StandardScaler().fit(train.features.flatten(1).double().numpy())
    fitted = LogisticRegressionCV(
        Cs=[1e-4, 1e-3, 1e-2, 1e-1], cv=min(5, len(data.train) // len(data.classes)), max_iter=300
    )
    fitted.fit(scaler.transform(train.features.flatten(1).double().numpy()), train.labels.numpy())
    probe = Probe(scaler, fitted)
    scores = [score(probe(part.features.flatten(1)), part.labels) for part in (test, train)]
    return Scores.of(scores[0], scores[1].top1)


def with_fastai(setting: Setting) -> Scores:
    """``vision_learner(...).fine_tune(epochs)``; the first, frozen epoch is one of them."""
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        ImageBlock,
        Normalize,
        Resize,
        aug_transforms,
        create_timm_model,
        default_split,
    )
    from fastai.vision.all import Learner as FastaiLearner

    data = setting.data
    assert data.train.paths is not None
    assert setting.recipe.model is not None
    paths, labels = data.train.paths, data.train.labels.tolist()
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(range(len(data.classes))))),
        get_x=lambda at: paths[at],
        get_y=lambda at: labels[at],
        splitter=lambda items: (items, []),
        item_tfms=Resize(data.image_size * 4 // 3),
        batch_tfms=[*aug_transforms(size=data.image_size, min_scale=0.75), Normalize.from_stats(data.mean, data.std)],
    )
    loaders = block.dataloaders(list(range(len(paths))), bs=32, num_workers=0)
    model, _ = create_timm_model(setting.recipe.model.removeprefix("timm:"), len(data.classes), pretrained=False)
    pretrained = setting.model().state_dict()
    model[0].model.load_state_dict({name: pretrained[name] for name in model[0].model.state_dict()})
    learner = FastaiLearner(loaders, model, splitter=default_split, loss_func=nn.CrossEntropyLoss())
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(setting.epochs - 1)
    return setting.scored(learner.model)


def with_timm(setting: Setting) -> Scores:
    """AdamW with layer decay and strong augmentation, by timm's factories."""
    from timm.data import create_transform
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler

    data, device = setting.data, default_device()
    assert data.train.paths is not None
    pictures = [read_rgb(path) for path in data.train.paths]
    transform = create_transform(
        data.image_size,
        is_training=True,
        auto_augment="rand-m7-mstd0.5-inc1",
        re_prob=0.25,
        interpolation="bicubic",
        mean=data.mean,
        std=data.std,
        scale=(0.35, 1.0),
    )
    model, criterion = setting.model(), LabelSmoothingCrossEntropy(0.1)
    optimizer = create_optimizer_v2(model, "adamw", lr=5e-4, weight_decay=0.05, layer_decay=0.75)
    steps = setting.steps // setting.epochs
    schedule = CosineLRScheduler(optimizer, setting.steps, warmup_t=setting.steps // 10, t_in_epochs=False)
    step = 0
    for _ in range(setting.epochs):
        model.train()
        for index in torch.randperm(len(pictures)).tensor_split(steps):
            schedule.step_update(step)
            x = torch.stack([transform(pictures[i]) for i in index.tolist()]).to(device)
            loss = criterion(model(x), data.train.labels[index].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    return setting.scored(model)


def with_method(method: str, setting: Setting) -> Scores:
    """Our own training."""
    freeze: Literal["none", "backbone"] = "backbone" if method.endswith(FROZEN) else "none"
    method = method.removesuffix(FROZEN)
    with tempfile.TemporaryDirectory() as folder:
        recipe = replace(setting.recipe, method=method, seed=setting.seed, epochs=setting.epochs, freeze=freeze)
        record = train(recipe, Path(folder) / "run", data=setting.data)
    assert record.evaluation.train_top1 is not None
    return Scores.of(record.evaluation, record.evaluation.train_top1, record.recipe.auto_weight)


def drawn(data: ImageData, per_class: int, draw: int) -> ImageData:
    """A part of the training images, another one for each draw."""
    generator, labels = np.random.default_rng(draw), data.train.labels.numpy()
    index = np.concatenate(
        [generator.permutation(np.flatnonzero(labels == label))[:per_class] for label in range(len(data.classes))]
    )
    return replace(data, train=data.train.select(torch.from_numpy(np.sort(index))))


def main() -> None:
    """Train what the command line says and is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with train/ and test/")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--model", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--per-class", type=int, nargs="+", default=[5, 10, 30])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--first-draw", type=int, default=0, help="so that several processes can share the draws")
    parser.add_argument("--epochs", type=int, help="default: those of our fine-tuning")
    parser.add_argument("--only", nargs="+", default=["linear probe", *METHODS, *FROZEN_METHODS, "fastai", "timm"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    recipe = TrainConfig(
        data=str(given.data), model=given.model, weights=given.weights, workers=0, eval_every=10**6, data_root="data"
    )
    whole = as_pretrained(recipe, load_data(recipe.data, root=Path("data"), image_size=given.image_size))
    others = {"linear probe": linear_probe, "fastai": with_fastai, "timm": with_timm}
    lines = given.json.read_text().splitlines() if given.json and given.json.is_file() else []
    done = {row.key: row for line in lines for row in [Row(**json.loads(line)["row"])]}
    print(f"{'':<24}{'n':>4}{'draw':>4}{'ep':>5}{'steps':>7}{'top-1':>9}{'NLL':>8}{'ECE':>8}{'train':>9}{'s':>8}")
    for draw in range(given.first_draw, given.first_draw + given.draws):
        for per_class in given.per_class:
            data = drawn(whole, per_class, draw)
            epochs = given.epochs or recipe.resolve(data).epochs
            setting = Setting(data, recipe, epochs, draw)
            for what in given.only:
                probe = what == "linear probe"
                key = (what, per_class, draw, 0 if probe else epochs)
                if key not in done:
                    row = measured(what, others.get(what), setting, per_class, draw, probe=probe)
                    done[key] = row
                    if given.json:
                        given.json.parent.mkdir(parents=True, exist_ok=True)
                        with given.json.open("a") as file:
                            file.write(json.dumps({"row": asdict(row)} | provenance(default_device())) + "\n")
                print(done[key], flush=True)


def measured(
    what: str,
    other: Callable[[Setting], Scores] | None,
    setting: Setting,
    per_class: int,
    draw: int,
    *,
    probe: bool,
) -> Row:
    """Train one network, or none for the probe."""
    random_state.seed_all(setting.seed)
    started = time.perf_counter()
    found = with_method(what, setting) if other is None else other(setting)
    epochs, steps = (0, 0) if probe else (setting.epochs, setting.steps)
    seconds = time.perf_counter() - started
    return Row(what, per_class, draw, epochs, steps, seconds=seconds, **found._asdict())


if __name__ == "__main__":
    main()
