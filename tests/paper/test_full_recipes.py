"""One optimiser step of every training of the paper at full scale: its own network, image size, classes and layout.

A batch has two images, and each class a few. The default run takes a step with each network, on each data set and with
each method; the rest is slow, sums of methods too.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.datasets import CIFAR100

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.detect.coco import load_coco
from selfdistill.detect.network import load_backbone
from selfdistill.detect.task import TERMS as DETECTION_TERMS
from selfdistill.detect.task import assemble as assemble_detector
from selfdistill.paper import TABLES, PaperConfig
from selfdistill.paper.detection_table import Detector
from selfdistill.paper.scales import Training
from selfdistill.training import train
from selfdistill.training.classification import assemble
from selfdistill.training.meters import Meters
from selfdistill.training.run import load
from selfdistill.training.session import make_fabric
from tests.detect.conftest import TRAIN, VAL, write_part
from tests.published import write_cifar, write_cub, write_dogs, write_imagenet

TRAININGS = tuple(
    dict.fromkeys(training for name, table in TABLES.items() if name != "caltech101" for training in table.trainings)
)
CLASSES = {"cifar100": 100, "cub200": 200, "dogs": 120, "imagenet": 1000}
WEIGHTS = {
    "resnet18": 11.2e6,
    "resnet34": 21.3e6,
    "densenet121": 7.0e6,
    "resnet18_byot224": 11.2e6,
    "resnet152": 60.2e6,
}
TERMS = {
    "CrossEntropy": set(),
    "LabelSmoothing": set(),
    "Dropout": set(),
    "SDDropout": {"sdd"},
    "CSKD": {"cskd"},
    "DDGSD": {"ddgsd", "mmd"},
    "BYOT": {"branch_ce", "byot", "hint"},
    "DML": {"dml"},
}  # fmt: skip

UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # of COCO's categories

Load = Callable[[TrainConfig], ImageData]


def first_of_their_kind() -> set[Training]:
    """The first training with each network, on each data set, and with each method, whatever its numbers."""
    first: dict[object, Training] = {}
    for training in TRAININGS:
        first.setdefault((training.network, training.head_layers), training)
        first.setdefault(training.data, training)
        if " + " not in training.method:
            first.setdefault(re.sub(r"(p|weight)=[\d.]+|\d", "", training.method), training)
    return set(first.values())


def mark_slow() -> list[object]:
    fast = first_of_their_kind()
    return [
        pytest.param(
            training,
            marks=() if training in fast else pytest.mark.slow,
            id=f"{training.data}-{training.network}-{training.head_layers}-{training.method}",
        )
        for training in TRAININGS
    ]


def watch(network: nn.Module) -> set[str]:
    """Return the names of the parameters that got a gradient other than zero; they come in as it flows."""
    touched: set[str] = set()

    def note(name: str, weight: nn.Parameter) -> None:
        assert weight.grad is not None
        if weight.grad.any():
            touched.add(name)

    for name, weight in network.named_parameters():
        if weight.requires_grad:
            weight.register_post_accumulate_grad_hook(partial(note, name))
    return touched


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All four sets as they are published, with all their classes."""
    root = tmp_path_factory.mktemp("data")
    write_cub(root, {number: f"{number:03}.Species_{number}" for number in range(1, 201)}, train=2, test=1)
    write_dogs(root, breeds=[f"n{number:08}-Breed_{number}" for number in range(120)], train=2, test=1)
    wnids = [f"n{number:08}" for number in range(1000)]
    write_imagenet(root, wnids=wnids, train=1, validation=wnids)
    with pytest.MonkeyPatch.context() as patch:
        write_cifar(root, CIFAR100, patch, each=2)
        yield root


@pytest.fixture(scope="module")
def load_once() -> Load:
    by_set: dict[str, ImageData] = {}

    def once(recipe: TrainConfig) -> ImageData:
        if recipe.data not in by_set:
            by_set[recipe.data] = load(recipe)
        return by_set[recipe.data]

    return once


@pytest.mark.parametrize("training", mark_slow())
def test_a_step(training: Training, root: Path, load_once: Load) -> None:
    recipe = PaperConfig("full", root / "out", root).plan_run(training, 41).recipe
    data = load_once(recipe)
    recipe = replace(recipe, batch_size=2, accumulate=1, workers=0).resolve(data)
    session = assemble(recipe, data, make_fabric(recipe, accelerator="cpu"))
    distiller = session.task.distiller
    weights = sum(weight.numel() for weight in distiller.model.parameters())
    assert weights == pytest.approx(WEIGHTS[training.network], rel=0.05)
    before = {name: weight.detach().clone() for name, weight in distiller.named_parameters()}
    touched = watch(distiller)
    distiller.train()
    (batch,) = next(session.task.loader.epoch(0))
    assert batch.x.shape == (2, 3, *[32 if training.data == "cifar100" else 224] * 2)
    logits: list[torch.Size] = []
    distiller.model.register_forward_hook(lambda model, x, y: logits.append(y.shape))
    meters = Meters(session.device, session.task.counts)
    session.step((batch,), 0, meters)
    assert {shape[1] for shape in logits} == {CLASSES[training.data]}
    assert math.isfinite(meters.means().loss)
    names = re.findall(r"(\w+)\(", training.method)
    assert set(meters.names) == {"ce"}.union(*(TERMS[name] for name in names))
    after = dict(distiller.named_parameters())
    assert touched == set(before)
    assert {name for name, weight in before.items() if torch.equal(weight, after[name])} == set()
    assert all(weight.isfinite().all() for weight in after.values())


DETECTORS = tuple(
    dict.fromkeys((spec.training, metric.evaluation) for spec in TABLES["table4"].cells for metric in spec.metrics)
)


@pytest.fixture(scope="module")
def coco(root: Path) -> Path:
    """Drawn images in COCO's layout with its 80 categories, whose ids go to 90; more steps than the warm-up has."""
    categories = [{"id": id_, "name": f"thing {id_}"} for id_ in range(1, 91) if id_ not in UNUSED_IDS]
    write_part(root / "coco", "train", [TRAIN[0]] * 80, categories)
    write_part(root / "coco", "val", VAL, categories)
    return root / "coco"


@pytest.fixture(scope="module")
def run_of(root: Path) -> Callable[[Training], Path]:
    """Return a function that makes a run of Table 3: its recipe, but for two classes and a single step."""
    config = PaperConfig("full", root / "out", root)

    def make(training: Training) -> Path:
        planned = config.plan_run(training, 41)
        few = {"classes": 2, "per_class": 1, "test_per_class": 1, "epochs": 1, "batch_size": 2, "accumulate": 1}
        train(replace(planned.recipe, **few, workers=0), config.runs / planned.name, accelerator="cpu")
        return config.runs / planned.name

    return make


@pytest.mark.slow
@pytest.mark.parametrize(("training", "detector"), DETECTORS, ids=lambda one: getattr(one, "method", None) or one.name)
def test_a_step_of_a_detector(
    training: Training, detector: Detector, root: Path, coco: Path, run_of: Callable[[Training], Path]
) -> None:
    """Of Table 4, on a network of Table 3; an image a step, whose sides are those of the paper's recipe."""
    recipe = replace(
        detector.recipe(run_of(training), PaperConfig("full", root / "out", root), 41), batch_size=1, workers=0
    )
    backbone = load_backbone(recipe)
    recipe = recipe.resolve(backbone.model, trained=backbone.state is not None)
    length = {"1x": (12, (8, 11)), "0.5x": (7, (5, 6))}[detector.schedule]
    assert (recipe.model, recipe.norm, recipe.image_size, recipe.seed) == ("resnet152", "frozen", 800, 41)
    assert (recipe.epochs, recipe.drop_epochs) == length
    session = assemble_detector(recipe, load_coco(coco), backbone, make_fabric(recipe, accelerator="cpu"))
    network, meters = session.task.detector, Meters(session.device)
    predictor = network.roi_heads.box_predictor
    assert predictor.cls_score.out_features == 91
    weights = dict(network.named_parameters())
    trained = {name for name, weight in weights.items() if weight.requires_grad}
    assert {name.removeprefix("backbone.body.").split(".")[0] for name in set(weights) - trained} == {"conv1", "layer1"}
    touched = watch(network)
    before = predictor.cls_score.weight.detach().clone()
    network.train()
    session.step(next(session.task.loader.epoch(0)), 0, meters)
    losses = meters.means().terms
    assert tuple(losses) == DETECTION_TERMS
    assert all(0 < loss < math.inf for loss in losses.values())  # large: its BatchNorm has seen two images
    assert touched == trained
    assert not torch.equal(before, predictor.cls_score.weight)
