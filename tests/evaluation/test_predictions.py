"""What a run keeps of its predictions: the right pictures, whole or not at all."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from selfdistill.data import ImageData, Split
from selfdistill.evaluation import predictions
from selfdistill.evaluation.predictions import images_to_show, predictions_to_keep, thumbnail, with_grad_cam
from selfdistill.records import Predictions

N, C = 60, 3


def image_data(test: Split) -> ImageData:
    return ImageData("d", test, test, ("a", "b", "<c>"), (0.5,) * 3, (0.2,) * 3, 32, "none", "all", ())


def _npy() -> bytes:
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    return content.getvalue()


@pytest.fixture
def kept() -> Predictions:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (N, 3, 20, 30), generator=random, dtype=torch.uint8)
    labels = torch.randint(0, C, (N,), generator=random)
    found = predictions_to_keep(torch.randn(N, C, generator=random), labels, image_data(Split(labels, images=images)))
    assert found is not None
    return found


def test_the_surest_mistakes_and_the_least_sure_right_answers_are_in_the_gallery(kept: Predictions) -> None:
    p = torch.from_numpy(kept.logits).double().softmax(dim=1)
    sure = {at: float(p[at].max()) for at in range(N)}
    wrong = [at for at in range(N) if int(p[at].argmax()) != kept.labels[at]]
    right = [at for at in range(N) if at not in wrong]
    assert len(wrong) > 12 < len(right)
    assert list(kept.shown[:12]) == sorted(wrong, key=lambda at: -sure[at])[:12]
    assert list(kept.shown[12:]) == sorted(right, key=lambda at: sure[at])[:12]
    assert images_to_show(kept) == kept.shown


def test_predictions_round_trip_and_are_the_same_bytes(kept: Predictions, tmp_path: Path) -> None:
    kept.save(tmp_path)
    content = (tmp_path / "predictions.npz").read_bytes()
    found = Predictions.load(tmp_path, kept.accuracy)
    assert found is not None
    assert (found.classes, found.shown, found.thumbnails) == (kept.classes, kept.shown, kept.thumbnails)
    assert np.array_equal(found.logits, kept.logits)
    assert np.array_equal(found.labels, kept.labels)
    found.save(tmp_path)
    assert (tmp_path / "predictions.npz").read_bytes() == content


def test_each_picture_has_the_heat_map_of_its_own_image(kept: Predictions, tmp_path: Path) -> None:
    # The class is the brightness of the first channel, so the map is largest where the picture is reddest.
    model = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, C))
    model[0].weight.data = torch.zeros(3, 3, 1, 1).index_fill_(1, torch.tensor(0), 1.0)
    model[3].weight.data.fill_(1.0)
    images = torch.zeros(N, 3, 32, 32, dtype=torch.uint8)
    for at in range(N):
        images[at, 0, 8 * (at % 4) : 8 * (at % 4) + 8] = 255
    data = image_data(Split(torch.from_numpy(kept.labels), images=images))
    found = with_grad_cam(kept, model, data, device=torch.device("cpu"), layer="0")
    for at, content in zip(found.shown, found.heat_maps, strict=True):
        picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
        assert picture.shape == (32, 32, 3)
        assert (picture[:, :, 0] - picture[:, :, 2]).reshape(4, -1).sum(axis=1).argmax() == at % 4
    found.save(tmp_path)
    again = Predictions.load(tmp_path, kept.accuracy)
    assert again is not None
    assert (again.heat_maps, again.thumbnails) == (found.heat_maps, kept.thumbnails)


def test_predictions_of_another_network_or_damaged_are_not_used(kept: Predictions, tmp_path: Path) -> None:
    assert Predictions.load(tmp_path, 1.0) is None
    kept.save(tmp_path)
    assert Predictions.load(tmp_path, kept.accuracy + 1 / N) is None
    path = tmp_path / "predictions.npz"
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"not an archive", _npy()):
        path.write_bytes(damaged)
        assert Predictions.load(tmp_path, kept.accuracy) is None
    Predictions(kept.logits, kept.labels, kept.classes[:2], kept.shown, kept.thumbnails).save(tmp_path)
    assert Predictions.load(tmp_path, kept.accuracy) is None
    Predictions(kept.logits, kept.labels, kept.classes, (N,), (b"",)).save(tmp_path)
    assert Predictions.load(tmp_path, kept.accuracy) is None


def test_a_thumbnail_is_small_and_may_be_gone(kept: Predictions, tmp_path: Path) -> None:
    in_memory = Image.open(io.BytesIO(kept.thumbnails[0]))
    assert (in_memory.format, in_memory.size) == ("PNG", (30, 20))
    path = tmp_path / "a.png"
    Image.new("RGB", (300, 200), "red").save(path)
    split = Split(torch.zeros(1, dtype=torch.int64), paths=(path,))
    of_file = Image.open(io.BytesIO(thumbnail(split, 0)))
    assert (of_file.format, of_file.size) == ("JPEG", (96, 64))
    path.unlink()
    assert thumbnail(split, 0) == b""


def test_too_many_logits_are_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "MAX_VALUES", 3)
    split = Split(torch.zeros(2, dtype=torch.int64), images=torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    assert predictions_to_keep(torch.zeros(2, 2), split.labels, image_data(split)) is None
