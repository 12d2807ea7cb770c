"""The detector: which weights it starts from, what of it is trained, and one step of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

from selfdistill.detect import DetectRecipe, load_coco
from selfdistill.detect.network import build_detector, load_backbone
from selfdistill.detect.session import TERMS, assemble
from selfdistill.train import NonFiniteLossError, Recipe, load, load_run, random_state, train
from selfdistill.train.session import make_fabric

pytestmark = pytest.mark.usefixtures("small_head")


def of_run(run: Path, **values: object) -> DetectRecipe:
    return replace(DetectRecipe(backbone=str(run), image_size=64, rois=8), **values).resolve("resnet18", trained=True)


@pytest.mark.parametrize("norm", ["frozen", "trained"])
def test_the_backbone_is_the_runs_network(trained: Path, norm: str) -> None:
    recipe = of_run(trained, norm=norm)
    backbone = load_backbone(recipe)
    body = build_detector(backbone, recipe, 91).backbone.body.eval()
    classifier = load(trained)
    images = torch.rand(2, 3, 64, 64)
    features = images
    for name, layer in classifier.named_children():
        if name == "avgpool":
            break
        features = layer(features)
    torch.testing.assert_close(body(images)["3"], features, atol=1e-5, rtol=1e-4)
    kinds = {type(module) for module in body.modules() if "BatchNorm" in type(module).__name__}
    assert kinds == {FrozenBatchNorm2d if norm == "frozen" else nn.BatchNorm2d}
    assert body["bn1"].eps == 1e-5


def test_what_a_record_says_of_the_backbone(trained: Path) -> None:
    backbone = load_backbone(of_run(trained))
    assert (backbone.model, backbone.source["run"], backbone.source["method"]) == (
        "resnet18",
        "sddropout-seed3",
        "SDDropout()",
    )
    assert (backbone.source["seed"], backbone.source["data"], backbone.source["epochs"]) == (3, "digits", 1)
    # Images are normalised as those that it was trained on.
    run = load_run(trained)
    detector = build_detector(backbone, of_run(trained), 91)
    assert (detector.transform.image_mean, detector.transform.image_std) == (list(run.mean), list(run.std))
    scratch = load_backbone(DetectRecipe(model="resnet34"))
    assert (scratch.state, scratch.mean, scratch.source) == (None, (0.485, 0.456, 0.406), {"weights": "from scratch"})


@pytest.mark.parametrize(
    ("layers", "frozen"),
    [
        (5, set()),
        (4, {"bn1", "conv1"}),
        (3, {"bn1", "conv1", "layer1"}),
        (0, {"bn1", "conv1", "layer1", "layer2", "layer3", "layer4"}),
    ],
)
def test_layers_that_are_not_trained(layers: int, frozen: set[str]) -> None:
    recipe = DetectRecipe(model="resnet18", trainable_layers=layers).resolve("resnet18", trained=False)
    detector = build_detector(load_backbone(recipe), recipe, 91)
    still = {n.split(".")[2] for n, p in detector.named_parameters() if not p.requires_grad}
    assert still == frozen
    assert (detector.transform.min_size, detector.transform.max_size) == ((800,), 1333)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "`backbone` or `model` must be given"),
        ({"model": "resnet"}, r"`model` is resnet: a detector's backbone is a ResNet of torchvision's, resnet101, "),
        ({"model": "vgg16"}, "`model` is vgg16: a detector's backbone is a ResNet"),
        ({"backbone": "nothing"}, "nothing holds no finished run: there is no model.json in it"),
        ({"backbone": "nothing", "weights": "default"}, "`weights` belongs to `model` alone"),
    ],
)
def test_no_backbone(values: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_backbone(DetectRecipe(**values))  # type: ignore[arg-type]


def test_a_run_of_another_kind_of_network(tmp_path: Path) -> None:
    recipe = Recipe(data="digits", classes=2, per_class=2, test_per_class=2, model="resnet10_cifar", width=2, epochs=1)
    train(replace(recipe, threads=1), tmp_path / "run")
    with pytest.raises(ValueError, match="run is a resnet10_cifar: a detector's backbone is a ResNet of torchvision's"):
        load_backbone(DetectRecipe(backbone=str(tmp_path / "run")))


def test_a_step_is_plain_pytorch(coco: Path, recipe: DetectRecipe) -> None:
    """Two steps against SGD on the sum of torchvision's four losses, written down anew."""
    recipe = replace(recipe, clip=1.0, warmup_steps=3, momentum=0.5, weight_decay=0.01).resolve(
        "resnet18", trained=False
    )
    data = load_coco(coco)
    fabric = make_fabric(Recipe(precision="32-true"), accelerator="cpu")
    session = assemble(recipe, data, load_backbone(recipe), fabric)
    start = {name: value.clone() for name, value in session.detector.state_dict().items()}
    random = torch.get_rng_state()
    session.detector.train()
    batches = list(session.loader.epoch(0))
    values = [session.step(batch, position) for position, batch in enumerate(batches)]

    other = build_detector(load_backbone(recipe), recipe, data.classes).train()
    other.load_state_dict(start)
    parameters = [p for p in other.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1.0, momentum=0.5, weight_decay=0.01)
    torch.set_rng_state(random)
    for position, (images, targets) in enumerate(batches):
        losses = other(images, [{"boxes": t["boxes"], "labels": t["labels"]} for t in targets])
        by_hand = [losses[f"loss_{name}"].item() for name in TERMS]
        assert values[position] == pytest.approx(by_hand, rel=1e-4)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        rate = 0.001 * (0.001 + 0.999 * position / 3)
        assert session.rate(position) == pytest.approx(rate)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    for (name, one), two in zip(session.detector.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4, msg=name)


def test_a_loss_that_is_no_number_is_named(coco: Path, recipe: DetectRecipe) -> None:
    recipe = replace(recipe, lr=2.0).resolve("resnet18", trained=False)
    data = load_coco(coco)
    session = assemble(recipe, data, load_backbone(recipe), make_fabric(Recipe(), accelerator="cpu"))
    with torch.no_grad():
        session.detector.roi_heads.box_predictor.cls_score.bias.fill_(float("nan"))
    session.detector.train()
    with pytest.raises(NonFiniteLossError, match=r"'classifier' was not finite at epoch 1, step 2; try a lower `lr`"):
        session.step(next(session.loader.epoch(0)), 1)


def test_the_unpatched_detector_is_torchvisions() -> None:
    """Not the small one of these tests: names and shapes of Faster R-CNN on ResNet-18 with 91 classes."""
    layers = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    wanted = FasterRCNN(layers, 91).state_dict()
    assert wanted["roi_heads.box_predictor.cls_score.weight"].shape == (91, 1024)
    assert {n.removeprefix("backbone.body.") for n in wanted if n.startswith("backbone.body.")} == {
        n for n in resnet18().state_dict() if not n.startswith("fc.") and not n.endswith("num_batches_tracked")
    }


def test_the_random_state_is_that_of_the_rank(coco: Path, recipe: DetectRecipe) -> None:
    recipe = recipe.resolve("resnet18", trained=False)
    assemble(recipe, load_coco(coco), load_backbone(recipe), make_fabric(Recipe(), accelerator="cpu"))
    state = torch.get_rng_state()
    random_state.seed_all(random_state.rank_seed(recipe.seed, 0))
    assert torch.equal(state, torch.get_rng_state())


def test_half_precision_is_the_backbones_alone(coco: Path, recipe: DetectRecipe) -> None:
    data = load_coco(coco)
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        resolved = replace(recipe, precision=precision).resolve("resnet18", trained=False)
        session = assemble(resolved, data, load_backbone(resolved), make_fabric(Recipe(), accelerator="cpu"))
        seen: list[torch.dtype] = []
        pyramid, heads = session.detector.backbone, session.detector.roi_heads
        pyramid.body["layer4"].register_forward_hook(lambda layer, x, y, seen=seen: seen.append(y.dtype))
        heads.register_forward_pre_hook(lambda layer, x, seen=seen: seen.extend(boxes.dtype for boxes in x[1]))
        session.detector.train()
        losses[precision] = session.step(next(session.loader.epoch(0)), 1)
        assert seen == [torch.float32 if precision == "32-true" else torch.bfloat16, torch.float32, torch.float32]
        assert {p.dtype for p in session.detector.parameters()} == {torch.float32}
    assert losses["bf16-mixed"] != losses["32-true"]
    assert losses["bf16-mixed"] == pytest.approx(losses["32-true"], rel=0.1, abs=0.02)
