"""What a step costs: batches that satisfy every method, shares that arithmetic foretells, and honest refusals."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from selfdistill import CrossEntropy, SDDropout, SelfDistiller, methods
from selfdistill.method import Method, Needs
from selfdistill.methods import parse_method
from selfdistill.models import build
from selfdistill.progress import Progress
from selfdistill.report.lists import cost_table, method_lines
from selfdistill.runs import cost
from selfdistill.runs.cost import Cost, Costs, measure_costs, prepare_costs
from selfdistill.timing.profiler import StepProfiler
from selfdistill.timing.synthetic import SAMPLES, example_methods, make_batch

SMALL = {"batch_size": 8, "classes": 5, "image_size": 16}
EXAMPLES = example_methods()


def net() -> nn.Module:
    return build("resnet10_cifar", 5, width=4)


class Net(nn.Module):
    """With stages and dropout: every method can train it."""

    def __init__(self, *, before_head: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.layer1, self.layer2 = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, stride=2)
        self.layer3, self.layer4 = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 6, 1)
        self.early, self.late = nn.Dropout(0.0 if before_head else 0.2), nn.Dropout(0.2 if before_head else 0.0)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layer2(self.early(self.layer1(self.stem(x))))
        pooled = self.layer4(self.layer3(maps).relu()).mean(dim=(2, 3))
        logits: Tensor = self.fc(self.late(pooled))
        return logits


# One of each method, and what it needs.


def test_each_example_method_is_made_by_its_expression() -> None:
    assert list(EXAMPLES) == methods.__all__
    for name, method in EXAMPLES.items():
        assert type(method).__name__ == name
        assert repr(parse_method(repr(method))) == repr(method)


def test_a_batch_brings_what_is_needed_and_no_more() -> None:
    bare = make_batch(Needs(), **SMALL)
    assert (tuple(bare.x.shape), tuple(bare.y.shape)) == ((8, 3, 16, 16), (8,))
    assert (bare.views, bare.pair, bare.index, bare.previous) == ((), None, None, None)
    full = make_batch(Needs(views=3, pair="other", group=3, index=True, previous=True), samples=9, **SMALL)
    tensors = [full.x, *full.views, full.pair]
    assert len(full.views) == 2
    for number, tensor in enumerate(tensors):
        assert isinstance(tensor, Tensor)
        assert tensor.shape == full.x.shape
        assert not any(torch.equal(tensor, other) for other in tensors[:number])
    assert full.index is not None
    assert len(set(full.index.tolist())) == 8
    assert (int(full.index.min()) >= 0, int(full.index.max()) < 9) == (True, True)
    assert full.previous is not None
    assert torch.equal(full.previous[1], full.y), "the batch follows itself"
    assert [len(set(full.y[at : at + 3].tolist())) for at in (0, 3, 6)] == [1, 1, 1]
    assert 0 <= int(full.y.min()) <= int(full.y.max()) < 5


def test_batches_are_those_of_their_seed() -> None:
    one, same, other = (make_batch(Needs(index=True), seed=seed, **SMALL) for seed in (1, 1, 2))
    assert torch.equal(one.x, same.x)
    assert torch.equal(one.index, same.index)
    assert not torch.equal(one.x, other.x)
    assert len({int(label) for label in make_batch(Needs(), batch_size=200, classes=5, image_size=1).y}) == 5


@pytest.mark.filterwarnings("ignore:DML draws its peer")
@pytest.mark.parametrize("method", EXAMPLES.values(), ids=repr)
def test_every_method_trains_on_such_a_batch(method: Method) -> None:
    batch = make_batch(method.needs, **SMALL)
    distiller = SelfDistiller(Net(), type(method)(**given(method)), example_input=batch.x)
    for done in (0.0, 0.5):
        distiller.set_progress(done, epoch_end=done + 0.5)
        loss = distiller(batch.x, batch.y, batch.views, batch.pair, batch.index, batch.previous).loss
    assert torch.isfinite(loss)


def given(method: Method) -> dict[str, Any]:
    return {"samples": SAMPLES} if hasattr(method, "samples") else {}


# A trial.


class Doubling(Method):
    """Passes x twice."""

    needs = Needs(views=2)


class Wide(Method):
    """Has a layer of its own."""

    def build(self, probe: Any, model: nn.Module) -> None:
        self.layer = nn.Linear(7, 3)


def trial(method: Method, model: nn.Module | None = None) -> StepProfiler:
    return StepProfiler(model or net(), method, make_batch(method.needs, **SMALL))


def test_the_memory_of_a_known_network() -> None:
    # Linear keeps its input and ReLU its output, the same storage for the next Linear; cross-entropy its posteriors
    # and the labels. Parameters do not count.
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 32), nn.ReLU(), nn.Linear(32, 5))
    floats = 8 * 768 + 8 * 32 + 8 * 5
    assert trial(CrossEntropy(), model).bytes == pytest.approx(4 * floats + 8 * 8, abs=8)


def test_two_views_keep_twice_as_much() -> None:
    assert trial(Doubling()).bytes / trial(CrossEntropy()).bytes == pytest.approx(2, rel=0.02)


def test_extra_parameters_are_the_methods_own() -> None:
    assert trial(Wide()).extra_parameters == 7 * 3 + 3
    assert trial(SDDropout()).extra_parameters == 0
    dml = trial(EXAMPLES["DML"].__class__())
    assert dml.extra_parameters == sum(parameter.numel() for parameter in net().parameters())


def test_a_trial_copies_the_model_and_takes_real_steps() -> None:
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one = trial(CrossEntropy(), model)
    weights = one.distiller.model.fc.weight.detach().clone()
    assert one.seconds() > 0
    assert not torch.equal(one.distiller.model.fc.weight, weights)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.fc._forward_pre_hooks


def test_a_first_step_has_no_batch_before_it() -> None:
    seen: list[bool] = []

    class Watching(Method):
        needs = Needs(previous=True)

        def terms(self, step: Any) -> dict[str, Any]:
            seen.append(step.previous is not None)
            return {}

    trial(Watching()).seconds()
    assert seen == [False, True, True]


# The comparison.


def test_ratios_are_medians_over_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"CrossEntropy": iter([9.0, 1.0, 2.0, 4.0]), "SDDropout": iter([1.5, 2.0, 400.0])}
    order: list[str] = []

    class Clocked(StepProfiler):
        def __init__(self, model: nn.Module, method: Method, batch: Any) -> None:
            self.name, self.extra_parameters = type(method).__name__, 3
            self.bytes = 10 if self.name == "CrossEntropy" else 15

        def seconds(self) -> float:
            order.append(self.name)
            return next(taken[self.name])

    monkeypatch.setattr(cost, "StepProfiler", Clocked)
    told: list[Progress] = []
    costs = measure_costs(nn.Identity(), {"SDDropout": SDDropout()}, seconds=0, progress=told.append)
    assert costs.methods == {"SDDropout": Cost(time=1.5, memory=1.5, extra_parameters=3, pairs=3)}
    assert (costs.seconds, costs.bytes, costs.refused) == (3.0, 10, {})
    assert told == [Progress("measuring methods", 0, 1, "methods", detail="SDDropout")]
    pairs = [order[at : at + 2] for at in (1, 3, 5)]
    assert pairs == [["CrossEntropy", "SDDropout"], ["SDDropout", "CrossEntropy"], ["CrossEntropy", "SDDropout"]]


def test_every_method_but_those_that_refuse_is_measured() -> None:
    costs = measure_costs(net(), example_methods(), seconds=0, **SMALL)
    assert set(costs.methods) | set(costs.refused) == set(methods.__all__)
    assert list(costs.refused) == ["RDrop"]
    reason = costs.refused["RDrop"]
    assert "has none that is active in training" in reason
    assert "use SDDropout" not in reason, "the remedy is left out"
    for name, measured in costs.methods.items():
        assert 0.02 < measured.time < 50, name
        assert 0.9 < measured.memory < 3, name
        assert measured.pairs == 3
    assert costs.methods["CrossEntropy"].memory == 1
    assert costs.methods["DDGSD"].memory == pytest.approx(2, rel=0.05)
    assert costs.methods["BYOT"].extra_parameters > 0
    assert costs.methods["SDDropout"].extra_parameters == 0


def test_with_dropout_every_method_is_measured() -> None:
    costs = measure_costs(Net(before_head=True), example_methods(), seconds=0, **SMALL)
    assert costs.refused == {}


def test_more_time_gives_more_pairs() -> None:
    costs = measure_costs(net(), {"SDDropout": SDDropout()}, seconds=60, **(SMALL | {"batch_size": 2}))
    assert costs.methods["SDDropout"].pairs == 50


def test_what_is_asked_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="`batch_size`"):
        prepare_costs("resnet10_cifar", width=4, image_size=8, batch_size=1)
    with pytest.raises(ValueError, match="`image_size`"):
        prepare_costs("resnet10_cifar", width=4, image_size=0, batch_size=2)
    with pytest.raises(ValueError, match="unknown model 'resnet'"):
        prepare_costs("resnet", width=None, image_size=None, batch_size=2)
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(cost, "measure_costs", lambda model, known, **options: asked.append(options | {"model": model}))
    torch.set_num_threads(1)
    setting, _ = prepare_costs("resnet10_cifar", width=None, image_size=None, batch_size=4)()
    assert re.match("resnet10_cifar of width 16, 4 images of 32 px, 100 classes, ", setting)
    setting, _ = prepare_costs("timm:test_vit", width=None, image_size=None, batch_size=4)()
    assert re.match("timm:test_vit, 4 images of 224 px, 100 classes, ", setting)
    assert [options["image_size"] for options in asked] == [32, 224]
    assert asked[0]["model"].fc.in_features == 16 * 8


# The tables.


def test_the_table() -> None:
    measured = {"A": Cost(1.384, 0.991, 1234, 5), "B": Cost(0.999, 1.0, 0, 5)}
    costs = Costs(0.25, 3 * 2**20, torch.device("cpu"), measured, {"C": "no dropout", "D": "D(x=1) has none"})
    table = cost_table(costs)
    assert table.headings == ("Method", "Extra time (%)", "Extra memory (%)", "Extra parameters")
    assert table.rows == (
        ("A", "+38", "−1", "1,234"),  # noqa: RUF001
        ("B", "0", "0", "0"),
        ("C", "–", "–", "–"),  # noqa: RUF001
        ("D", "–", "–", "–"),  # noqa: RUF001
    )
    assert table.notes == (
        "Beside a step of cross-entropy, which takes 0.25 s and keeps 3.0 MiB for its backward pass.",
        "C: no dropout",
        "D(x=1) has none",
    )
    on_gpu = Costs(0.25, 2**20, torch.device("cuda"), {}, {})
    assert cost_table(on_gpu).notes[0].endswith("allocates 1.0 MiB at most.")


def test_the_lines_name_arguments_and_needs() -> None:
    lines = method_lines()
    assert lines[::2] == [line for line in lines if not line.startswith(" ")]
    assert [line.split("(")[0] for line in lines[::2]] == methods.__all__
    text = "\n".join(lines)
    assert "PSKD(samples, weight=0.8)" in lines
    assert "_empty" not in text
    for need in ("2 views of each image", "groups of 4 images of a class", "an image of each image's class"):
        assert need in text
    assert lines[2 * methods.__all__.index("CrossEntropy") + 1].endswith("Needs nothing more.")


@pytest.mark.gpu
def test_costs_on_a_gpu() -> None:
    costs = measure_costs(Net(), example_methods(), device="cuda", seconds=5, **(SMALL | {"batch_size": 256}))
    assert costs.refused == {}
    assert costs.methods["CrossEntropy"].memory == pytest.approx(1, abs=0.02)
    assert 1.5 < costs.methods["DDGSD"].memory < 2.5
    assert all(0.1 < measured.time < 20 for measured in costs.methods.values())
