import copy
import doctest
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from selfdistill import BYOT, CSKD, DLB, DML, CrossEntropy, SDDropout, SelfDistiller
from tests import nets
from tests.branch import Branch
from tests.conftest import Run


@pytest.fixture(name="integration", scope="module")
def _integration() -> Any:
    """Imported on use: it takes seconds."""
    from selfdistill.integrations import timm

    return timm


@pytest.fixture(name="task")
def _task(integration: Any) -> Any:
    return integration.DistillerTask(branched())


def branched() -> SelfDistiller:
    distiller = SelfDistiller(nets.ConvNet(), Branch(), example_input=nets.batch("conv")[0])
    distiller.set_progress(0.0)
    return distiller


def train(task: Any, steps: int = 2, optimizer: torch.optim.Optimizer | None = None) -> torch.optim.Optimizer:
    optimizer = optimizer or torch.optim.SGD(task.get_trainable_module().parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    task.train()
    for _ in range(steps):
        task(torch.randn(6, 3, 8, 8, generator=generator), torch.arange(6) % nets.CLASSES)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        task.update_ema()
    return optimizer


def test_the_result_is_the_distillers(integration: Any) -> None:
    x, y = nets.batch("conv")
    distiller = SelfDistiller(nets.ConvNet(), SDDropout())
    task = integration.DistillerTask(copy.deepcopy(distiller))
    torch.manual_seed(1)
    expected = distiller(x, y)
    torch.manual_seed(1)
    result = task(x, y)
    assert list(result) == ["loss", "output", "ce", "sdd"]
    torch.testing.assert_close(result["loss"], expected.loss)
    torch.testing.assert_close(result["output"], expected.logits)
    torch.testing.assert_close(result["sdd"], expected.terms["sdd"])


def test_what_methods_need_is_handed_on(integration: Any) -> None:
    x, y = nets.batch("conv")
    task = integration.DistillerTask(SelfDistiller(nets.ConvNet(), CSKD()))
    assert "cskd" in task(x, y, pair=torch.randn_like(x))


OWN = {"branch": (Branch, {}), "byot": (BYOT, {"stages": ("block", "after")}), "dml": (DML, {})}


@pytest.mark.filterwarnings("ignore:DML draws its peer")
@pytest.mark.parametrize("name", OWN)
def test_own_parameters_are_trained_and_lie_in_the_task_state(name: str, integration: Any) -> None:
    kind, options = OWN[name]
    distiller = SelfDistiller(nets.ConvNet(), kind(), example_input=nets.batch("conv")[0], **options)
    distiller.set_progress(0.0)
    task = integration.DistillerTask(distiller)
    before = {name: value.clone() for name, value in distiller.method.named_parameters() if name.endswith("weight")}
    assert before
    train(task)
    for parameter, value in before.items():
        assert not torch.equal(distiller.method.get_parameter(parameter), value), parameter
    state = task.get_checkpoint_state()
    assert list(state["state_dict"]) == list(nets.ConvNet().state_dict())
    assert set(before) <= set(state["task_state"]["method"])


def test_the_bare_model_alone_where_there_is_no_more(integration: Any) -> None:
    task = integration.DistillerTask(SelfDistiller(nets.ConvNet(), CrossEntropy()))
    assert list(task.get_checkpoint_state()) == ["state_dict"]
    nets.ConvNet().load_state_dict(task.get_checkpoint_state()["state_dict"], strict=True)


def test_a_resumed_training_ends_where_a_whole_one_does(task: Any, integration: Any, tmp_path: Path) -> None:
    from timm.task import resume_task_checkpoint

    whole = integration.DistillerTask(copy.deepcopy(task.distiller))
    train(whole, 2, optimizer=train(whole))
    optimizer = train(task)
    saved = {**task.get_checkpoint_state(), "optimizer": optimizer.state_dict(), "epoch": 0, "version": 2}
    torch.save(saved, tmp_path / "last.pth.tar")

    fresh = integration.DistillerTask(branched())
    optimizer = torch.optim.SGD(fresh.get_trainable_module().parameters(), lr=0.1, momentum=0.9)
    assert resume_task_checkpoint(fresh, tmp_path / "last.pth.tar", optimizer, log_info=False) == 1
    train(fresh, 2, optimizer=optimizer)
    assert fresh.distiller.method.seen == whole.distiller.method.seen == 24
    for name, value in whole.distiller.state_dict().items():
        torch.testing.assert_close(fresh.distiller.state_dict()[name], value, msg=name)

    del saved["task_state"]
    torch.save(saved, tmp_path / "bare.pth.tar")
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: .*linear.weight"):
        resume_task_checkpoint(fresh, tmp_path / "bare.pth.tar", log_info=False)


@pytest.mark.parametrize("method", [Branch, DLB])
def test_the_moving_average_is_of_the_bare_model(method: Any, integration: Any) -> None:
    distiller = SelfDistiller(nets.ConvNet(), method(), example_input=nets.batch("conv")[0])
    distiller.set_progress(0.0)
    task = integration.DistillerTask(distiller)
    start = copy.deepcopy(distiller.model.state_dict())
    task.setup_ema(decay=0.75)
    train(task, 1)
    state = task.get_checkpoint_state(ema=True)
    assert list(state) == ["state_dict_ema"]
    for name, value in distiller.model.state_dict().items():
        average = 0.75 * start[name] + 0.25 * value if value.is_floating_point() else value
        torch.testing.assert_close(state["state_dict_ema"][name], average, msg=name)
    x, _ = nets.batch("conv")
    averaged = nets.ConvNet()
    averaged.load_state_dict(state["state_dict_ema"], strict=True)
    torch.testing.assert_close(task.get_eval_model(ema=True).eval()(x), averaged.eval()(x))
    task.load_checkpoint_state(start, ema=True)
    assert torch.equal(task.get_eval_model(ema=True).fc.weight, start["fc.weight"])


def test_evaluation_is_of_the_bare_model(task: Any) -> None:
    assert task.get_eval_model() is task.distiller.model
    assert task.get_eval_model(ema=True) is None
    assert not task.has_ema()


def test_clipping_covers_the_methods_own_parameters(task: Any) -> None:
    model, method = list(task.distiller.model.parameters()), list(task.distiller.method.parameters())
    assert identities(task.get_clip_parameters()) == identities([*model, *method])
    assert identities(task.get_clip_parameters(exclude_head=True)) == identities([*model[:-2], *method])


def identities(parameters: Any) -> list[int]:
    return [id(parameter) for parameter in parameters]


def vision_transformer() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=nets.CLASSES)


def test_optimisers_hear_what_the_model_says(integration: Any) -> None:
    from timm.optim import create_optimizer_v2

    distiller = SelfDistiller(vision_transformer(), Branch(), example_input=nets.batch("conv")[0])
    module = integration.DistillerTask(distiller).get_trainable_module()
    plain = create_optimizer_v2(distiller.model, opt="sgd", lr=0.1, weight_decay=0.05)
    ours = create_optimizer_v2(module, opt="sgd", lr=0.1, weight_decay=0.05)
    own = {id(parameter) for parameter in distiller.method.parameters()}

    def rates(optimizer: torch.optim.Optimizer) -> dict[int, tuple[float, float]]:
        return {
            id(parameter): (group["weight_decay"], group.get("lr_scale", 1.0))
            for group in optimizer.param_groups
            for parameter in group["params"]
        }

    assert rates(plain) == {key: value for key, value in rates(ours).items() if key not in own}
    assert own <= set(rates(ours))
    plain = create_optimizer_v2(distiller.model, opt="sgd", lr=0.1, weight_decay=0.05, layer_decay=0.5)
    ours = create_optimizer_v2(module, opt="sgd", lr=0.1, weight_decay=0.05, layer_decay=0.5)
    assert rates(plain) == {key: value for key, value in rates(ours).items() if key not in own}
    assert {rates(ours)[key][1] for key in own} == {1.0}


def test_compiled(task: Any) -> None:
    x, y = nets.batch("conv")
    expected = copy.deepcopy(task)(x, y)["loss"]
    assert task.compile(backend="eager") is task.get_eval_model()
    torch.testing.assert_close(task(x, y)["loss"], expected)
    assert list(task.get_checkpoint_state()["state_dict"]) == list(nets.ConvNet().state_dict())
    assert task.distiller.model is task.get_eval_model()._orig_mod


def _gradient_of_a_rank() -> tuple[float, float]:
    from selfdistill.integrations.timm import DistillerTask

    torch.manual_seed(0)
    distiller = SelfDistiller(nets.mlp(), Branch(), example_input=torch.zeros(1, 3, 8, 8))
    distiller.set_progress(0.0)
    task = DistillerTask(distiller).prepare_distributed()
    x, y = nets.batch("mlp", 8)
    mine = slice(4 * dist.get_rank(), 4 * dist.get_rank() + 4)
    with task.no_sync():
        task(x[mine], y[mine])["loss"].backward()
    task(x[mine], y[mine])["loss"].backward()
    assert list(task.get_checkpoint_state()["state_dict"]) == list(distiller.model.state_dict())
    return gradients(distiller)


def gradients(distiller: SelfDistiller) -> tuple[float, float]:
    def norm(parameter: Tensor) -> float:
        assert parameter.grad is not None
        return float(parameter.grad.norm())

    return norm(distiller.model.get_parameter("3.weight")), norm(distiller.method.get_parameter("linear.weight"))


@pytest.mark.slow  # two processes import timm
def test_two_processes(pool: Run) -> None:
    first, second = pool(_gradient_of_a_rank)
    assert first == second
    torch.manual_seed(0)
    distiller = SelfDistiller(nets.mlp(), Branch(), example_input=torch.zeros(1, 3, 8, 8))
    distiller.set_progress(0.0)
    x, y = nets.batch("mlp", 8)
    (2 * distiller(x, y).loss).backward()
    assert gradients(distiller) == pytest.approx(first, rel=1e-5)


def test_the_example_in_the_docstring(integration: Any) -> None:
    assert doctest.testmod(integration).attempted > 0
    assert doctest.testmod(integration).failed == 0
