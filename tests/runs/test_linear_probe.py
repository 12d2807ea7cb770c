"""The linear probe that a comparison on pretrained weights shows beside its methods."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from selfdistill.config import TrainConfig
from selfdistill.data import cache, eval_batches, files
from selfdistill.evaluation.images import read_features
from selfdistill.models import build
from selfdistill.records import LinearProbeRecord
from selfdistill.report import write_report
from selfdistill.training import fine_tuning
from selfdistill.training.run import load
from tests.runs.conftest import Compare

pytestmark = pytest.mark.filterwarnings("ignore:weights .* are for 7 classes")


@pytest.fixture
def pretrained(tmp_path: Path, recipe: TrainConfig) -> TrainConfig:
    torch.manual_seed(0)
    torch.save(build("resnet10_cifar", 7, width=4).state_dict(), tmp_path / "seven.pt")
    return replace(recipe, weights=str(tmp_path / "seven.pt"))


def test_it_is_sklearns_and_a_row_of_the_report(pretrained: TrainConfig, compare: Compare, tmp_path: Path) -> None:
    records = compare(recipe=pretrained)
    data = load(pretrained)
    model = build("resnet10_cifar", 7, width=4)
    model.load_state_dict(torch.load(tmp_path / "seven.pt"))
    train, test = (
        read_features(model, eval_batches(split, data, batch_size=64, device="cpu"), head="fc")
        for split in (data.train, data.test)
    )
    scale = float(train.features.double().square().mean().sqrt())
    fitted = LogisticRegression(C=1.0, max_iter=1000).fit(train.features.double().numpy() / scale, train.labels)
    p = fitted.predict_proba(test.features.double().numpy() / scale)
    found = LinearProbeRecord.beside(tmp_path / "runs")
    assert found is not None
    assert found.features == train.features.shape[1]
    assert found.evaluation.top1 == pytest.approx((p.argmax(1) == test.labels.numpy()).mean())
    assert found.evaluation.nll == pytest.approx(-np.log(p[range(len(p)), test.labels]).mean(), rel=1e-3)
    page = write_report(records, tmp_path / "report", title="T", probe=found).with_suffix(".md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith("| linear probe |")]
    assert f"{found.evaluation.top1 * 100:.2f}" in row


def test_photographs_are_decoded_and_probed_once_for_all_runs(
    pretrained: TrainConfig, compare: Compare, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(pretrained, data=str(photos), data_root=str(tmp_path), image_size=72, per_class=None, workers=0)
    # In channels-last order torch 2.15 crashes on a CPU with so few channels at this size.
    recipe = replace(recipe, test_per_class=None, channels_last=False)
    fitted: list[int] = []
    fit = fine_tuning.fit_linear_probe
    monkeypatch.setattr(fine_tuning, "fit_linear_probe", lambda *a, **k: (fitted.append(1), fit(*a, **k))[1])
    with monkeypatch.context() as patch:
        patch.setattr(files, "read_rgb", None)  # but for the one pass that makes the cache
        kept = compare(recipe=recipe, seeds=2)
    assert (len(kept), len(fitted)) == (4, 1)
    monkeypatch.setattr(cache, "_WHOLE", 0)
    (tmp_path / "cache").rename(tmp_path / "gone")
    decoded = compare(recipe=recipe, seeds=2, out=tmp_path / "others")
    assert len(fitted) == 6
    assert [one.rows[-1]["loss"] for one in kept] == [one.rows[-1]["loss"] for one in decoded]


def test_it_is_made_once_and_anew_for_other_images(pretrained: TrainConfig, compare: Compare, tmp_path: Path) -> None:
    compare(recipe=pretrained)
    first = LinearProbeRecord.beside(tmp_path / "runs")
    compare(recipe=pretrained, methods=["CrossEntropy()", "LabelSmoothing()", "Dropout()"])
    assert LinearProbeRecord.beside(tmp_path / "runs") == first
    compare(recipe=replace(pretrained, per_class=3), out=tmp_path / "others")
    others = LinearProbeRecord.beside(tmp_path / "others")
    assert first is not None
    assert others is not None
    assert others.of != first.of
