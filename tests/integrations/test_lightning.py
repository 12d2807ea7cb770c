import copy
import doctest
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from selfdistill import BYOT, CSKD, DML, Batch, CrossEntropy, SDDropout, SelfDistiller
from tests import nets
from tests.branch import Branch

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.* is deprecated"),  # Lightning's own
]


@pytest.fixture(name="lightning", scope="module")
def _lightning() -> Any:
    """Imported on use: it takes seconds."""
    from selfdistill.integrations import lightning

    return lightning


@pytest.fixture(name="fit")
def _fit(lightning: Any, tmp_path: Path) -> Any:
    def fit(
        distiller: SelfDistiller, batches: list[Any], *, lr: float = 0.1, resume: Path | None = None, **options: Any
    ):
        module = lightning.DistillerModule(distiller, lambda parameters: torch.optim.SGD(parameters, lr=lr))
        trainer = lightning.pl.Trainer(
            accelerator="cpu",
            logger=False,
            default_root_dir=tmp_path,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **{"max_epochs": 1, **options},
        )
        loader = DataLoader(batches, batch_size=None)
        trainer.fit(module, loader, loader, ckpt_path=resume)
        return trainer

    return fit


def batches(net: str = "conv", count: int = 3) -> list[tuple[Any, Tensor]]:
    return [nets.batch(net, 6) for _ in range(count)]


def test_terms_are_logged_by_name(fit: Any) -> None:
    distiller = SelfDistiller(nets.ConvNet(), SDDropout(weight=0.1))
    logged = fit(distiller, batches()).callback_metrics
    assert set(logged) == {"train/loss", "train/ce", "train/sdd", "val/ce", "val/accuracy"}
    torch.testing.assert_close(logged["train/loss"], logged["train/ce"] + 0.1 * 9 * logged["train/sdd"])


def test_the_loss_is_the_distillers(fit: Any) -> None:
    data = batches(count=2)
    uneven = [data[0], (data[1][0][:2], data[1][1][:2])]
    distiller = SelfDistiller(nets.ConvNet(), CrossEntropy())
    expected = [copy.deepcopy(distiller)(x, y).loss * len(y) / 8 for x, y in uneven]
    logged = fit(distiller, uneven, lr=0.0).callback_metrics
    torch.testing.assert_close(logged["train/loss"], sum(expected).detach())
    with torch.no_grad():
        scores = [(distiller.model.eval()(x).argmax(1) == y).float().sum() / 8 for x, y in uneven]
    torch.testing.assert_close(logged["val/accuracy"], sum(scores))


OWN = {
    "branch": (Branch, {}),
    "byot": (BYOT, {"stages": ("block", "after")}),
    "dml": (DML, {}),
}


@pytest.mark.filterwarnings("ignore:DML draws its peer")
@pytest.mark.parametrize("name", OWN)
def test_the_methods_own_parameters_are_trained_and_stay_out_of_the_model(name: str, fit: Any) -> None:
    kind, options = OWN[name]
    x, _ = nets.batch("conv")
    model = nets.ConvNet()
    keys = list(model.state_dict())
    distiller = SelfDistiller(model, kind(), example_input=x, **options)
    before = {name: value.clone() for name, value in distiller.method.named_parameters() if name.endswith("weight")}
    assert before
    fit(distiller, batches())
    for parameter, value in before.items():
        assert not torch.equal(distiller.method.get_parameter(parameter), value), parameter
    assert list(model.state_dict()) == keys


def test_the_bare_model_comes_out_of_a_checkpoint(fit: Any, lightning: Any, tmp_path: Path) -> None:
    x, _ = nets.batch("conv")
    distiller = SelfDistiller(nets.ConvNet(), Branch(), example_input=x)
    trainer = fit(distiller, batches())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    for checkpoint in (
        tmp_path / "last.ckpt",
        str(tmp_path / "last.ckpt"),
        torch.load(tmp_path / "last.ckpt", weights_only=True),
    ):
        fresh = nets.ConvNet()
        fresh.load_state_dict(lightning.student_state_dict(checkpoint), strict=True)
        torch.testing.assert_close(fresh.eval()(x), distiller.model.eval()(x))
    with pytest.raises(ValueError, match="not a checkpoint of a DistillerModule"):
        lightning.student_state_dict({"state_dict": {"model.fc.weight": torch.zeros(1)}})


def test_a_resumed_training_ends_where_a_whole_one_does(fit: Any, lightning: Any, tmp_path: Path) -> None:
    data = batches()
    x, _ = data[0]
    start = SelfDistiller(nets.ConvNet(), Branch(), example_input=x)
    whole, first, second = (copy.deepcopy(start) for _ in range(3))
    fit(whole, data, max_epochs=2)

    trainer = fit(first, data, max_epochs=2, callbacks=[stop_after_an_epoch(lightning)])
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    assert whole.method.seen == 2 * first.method.seen == 36
    second.model.load_state_dict(nets.ConvNet().state_dict())
    fit(second, data, max_epochs=2, resume=tmp_path / "half.ckpt")
    assert second.method.seen == 36
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, msg=name)


def stop_after_an_epoch(lightning: Any) -> Any:
    class Stop(lightning.pl.Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            trainer.should_stop = True

    return Stop()


def test_progress(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[float, float]] = []
    monkeypatch.setattr(SelfDistiller, "set_progress", lambda self, done, epoch_end: said.append((done, epoch_end)))
    distiller = SelfDistiller(nets.mlp(), CrossEntropy())
    fit(distiller, batches("mlp"), max_epochs=2, accumulate_grad_batches=2)
    assert said == [(0, 0.5), (0, 0.5), (0.25, 0.5), (0.5, 1), (0.5, 1), (0.75, 1)]
    said.clear()
    fit(distiller, batches("mlp"), max_epochs=-1, max_steps=4)
    assert said == [(0, 0.75), (0.25, 0.75), (0.5, 0.75), (0.75, 1)]


def test_batches_of_every_form(fit: Any) -> None:
    x, y = nets.batch("conv")
    pair = torch.randn_like(x)
    given = [Batch(x, y, pair=pair), {"x": x, "y": y, "pair": pair}]
    distiller = SelfDistiller(nets.ConvNet(), CSKD())
    logged = fit(distiller, given).callback_metrics
    assert {"train/ce", "train/cskd"} <= set(logged)

    inputs, y = nets.batch("mapping")
    distiller = SelfDistiller(nets.MappingNet(), CSKD())
    logged = fit(distiller, [{**inputs, "labels": y, "pair": {**inputs, "labels": y}}]).callback_metrics
    assert {"train/ce", "train/cskd"} <= set(logged)

    soft = [(x, torch.eye(nets.CLASSES)[torch.arange(6) % nets.CLASSES])]
    logged = fit(SelfDistiller(nets.ConvNet(), CrossEntropy()), soft).callback_metrics
    assert 0 <= logged["val/accuracy"] <= 1


def test_the_example_in_the_docstring(lightning: Any) -> None:
    assert doctest.testmod(lightning).attempted > 0
    assert doctest.testmod(lightning).failed == 0
