from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfdistill.data import ImageData, Split, load_data
from selfdistill.data.unlabelled import Unlabelled
from selfdistill.evaluation.accuracy import softmax
from selfdistill.evaluation.calibration import expected_calibration_error
from selfdistill.evaluation.corruptions.measure import measure_corruptions
from selfdistill.evaluation.images import Images, predict, read_features
from selfdistill.evaluation.ood.measure import measure_ood
from selfdistill.evaluation.robustness import measure_robustness
from selfdistill.evaluation.suite import evaluate, score
from selfdistill.records.evaluation import MEASURES, Evaluation
from tests.pictures import write_digits


def images(n: int, classes: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return Split(labels=torch.arange(n) % classes, images=pixels)


def small_data(classes: int = 7, train: int = 60, test: int = 35) -> ImageData:
    return ImageData(
        name="noise",
        train=images(train, classes, 0),
        test=images(test, classes, 1),
        classes=tuple(f"class {i}" for i in range(classes)),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        image_size=8,
        augment="none",
        test_split_description="test folder",
        skipped=(),
    )


def network(classes: int = 7) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, classes))


def test_every_number_agrees_with_its_own_function() -> None:
    data, model = small_data(), network()
    result = evaluate(model, data, device="cpu", batch_size=16)
    x = (data.test.images.float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        logits = model.eval()(x)
    p = softmax(logits)
    right = logits.argmax(1) == data.test.labels
    assert result.n == 35
    assert result.top1 == pytest.approx(float(right.float().mean()))
    assert result.ece == pytest.approx(expected_calibration_error(p, data.test.labels), abs=1e-5)
    assert result.gap == pytest.approx(p.max(axis=1).mean() - float(right.float().mean()), abs=1e-6)
    assert result.gap == pytest.approx(result.confidence - result.top1)
    assert result.nll == pytest.approx(float(nn.functional.cross_entropy(logits, data.test.labels)), abs=1e-5)
    assert sum(result.reliability.count) == 35
    assert result.per_class[3] == pytest.approx(float(right[data.test.labels == 3].float().mean()))
    assert np.mean(result.per_class) == pytest.approx(result.top1)
    assert result.train_n == 60


def test_the_batch_size_changes_nothing() -> None:
    model = network()
    whole = evaluate(model, small_data(), device="cpu", batch_size=512)
    parts = evaluate(model, small_data(), device="cpu", batch_size=3)
    assert parts.top1 == whole.top1
    assert parts.ece == pytest.approx(whole.ece, abs=1e-6)


def test_training_images_are_a_bounded_even_subset() -> None:
    result = evaluate(network(), small_data(), device="cpu", max_train=14)
    assert result.train_n == 14
    assert images(60, 7, 0).spaced(14).labels.tolist() == [(i * 60 // 14) % 7 for i in range(14)]
    none = evaluate(network(), small_data(), device="cpu", train=False)
    assert (none.train_n, none.train_top1) == (None, None)


def test_few_classes_have_no_top_5() -> None:
    assert score(torch.randn(9, 5), torch.zeros(9, dtype=torch.long)).top5 is None
    assert score(torch.randn(9, 6), torch.zeros(9, dtype=torch.long)).top5 is not None


def test_a_class_without_test_images_has_no_accuracy() -> None:
    assert score(torch.eye(3), torch.tensor([0, 1, 1])).per_class == (1.0, 0.5, None)


def batches(n: int = 2) -> Iterator[tuple[Tensor, Tensor]]:
    for i in range(n):
        yield torch.full((3, 4), float(i)), torch.full((3,), i)


def test_predict_restores_each_module_s_own_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2), nn.Dropout(0.9)).train()
    model[1].eval()  # a frozen BatchNorm must stay frozen
    logits, labels = predict(model, batches())
    assert [m.training for m in model] == [True, False, True]
    assert logits.shape == (6, 2)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(logits, predict(model, batches())[0])  # no dropout: the same again


def test_predict_restores_the_mode_after_an_error() -> None:
    model = nn.Linear(5, 2)  # the batches have 4 columns
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        predict(model, batches())
    assert model.training


class Wrapped(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.inner, self.kind = nn.Linear(4, 2), kind

    def forward(self, pixel_values: Tensor) -> object:
        z = self.inner(pixel_values)
        return {"tuple": (z, None), "mapping": {"logits": z}, "object": SimpleNamespace(logits=z)}[self.kind]


@pytest.mark.parametrize("kind", ["tuple", "mapping", "object"])
def test_predict_understands_other_outputs_and_mapping_inputs(kind: str) -> None:
    model = Wrapped(kind)
    pairs = [({"pixel_values": x}, y) for x, y in batches()]
    expected = torch.cat([model.inner(x) for x, _ in batches()])
    torch.testing.assert_close(predict(model, pairs)[0], expected.detach())


def test_bf16_gives_float32_logits_that_are_only_rounded() -> None:
    model = nn.Linear(4, 2)
    full, half = predict(model, batches())[0], predict(model, batches(), precision="bf16-mixed")[0]
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    torch.testing.assert_close(full, half, atol=0.02, rtol=0.02)


def test_bad_arguments_are_one_clear_line() -> None:
    with pytest.raises(ValueError, match=r"^precision: "):
        predict(nn.Linear(4, 2), batches(), precision="16")
    with pytest.raises(ValueError, match=r"^batches: "):
        predict(nn.Linear(4, 2), [])
    with pytest.raises(ValueError, match=r"^model: "):
        evaluate(network(5), small_data(), device="cpu")
    with pytest.raises(ValueError, match=r"^max_train: 0, expected at least 1"):
        evaluate(network(), small_data(), device="cpu", max_train=0)


def test_a_diverged_model_is_named() -> None:
    model = network()
    nn.init.constant_(model[2].weight, float("nan"))
    with pytest.raises(ValueError, match="are not finite numbers"):
        evaluate(model, small_data(), device="cpu")


# The whole suite.


def coloured(n: int, classes: int, seed: int, size: int = 16) -> Split:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (n, 3, size, size), generator=generator, dtype=torch.uint8)
    return Split(labels=torch.arange(n) % classes, images=pixels)


def larger_data(train: int = 40, test: int = 24, size: int = 16) -> ImageData:
    parts = {"train": coloured(train, 4, 0, size), "test": coloured(test, 4, 1, size)}
    classes = tuple(f"class {i}" for i in range(4))
    return replace(small_data(), **parts, classes=classes, image_size=size)


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    body = (nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*body, nn.Dropout(0.5), nn.Linear(8, 4))


def others(n: int = 20, size: int = 16) -> Unlabelled:
    return Unlabelled("noise", coloured(n, 1, 2, size), "as they are")


def whole(**options: Any) -> Evaluation:
    settings = {"device": "cpu", "measures": MEASURES, "ood_sets": [others()], "max_images": 12, "batch_size": 7}
    return evaluate(convolutional(), larger_data(), **(settings | options))


def test_every_measure_is_what_its_own_function_gives() -> None:
    result, model, data = whole(), convolutional(), larger_data()
    test, other = (Images(split, data, "cpu", batch_size=7) for split in (data.test, others().split))
    assert result.robustness == measure_robustness(model, test, max_images=12)
    assert result.shift == measure_corruptions(model, test.spaced(12))
    training, reading = (
        read_features(model, Images(split, data, "cpu").batches()) for split in (data.train, data.test)
    )
    assert result.ood == measure_ood(
        model, test, [("noise", "as they are", other)], training=training, id_reading=reading
    )
    assert result.omitted == ()
    assert set(result.ood[0].detectors) >= {"ODIN fixed", "ODIN released", "Mahalanobis", "energy"}
    basic = evaluate(model, data, device="cpu", batch_size=7)
    assert (result.n, result.top1, result.train_top1) == (basic.n, basic.top1, basic.train_top1)
    assert (result.nll, result.ece) == pytest.approx((basic.nll, basic.ece))
    assert result.scaled.ece == pytest.approx(basic.scaled.ece)
    assert result.selective.aurc == pytest.approx(basic.selective.aurc)
    assert (basic.robustness, basic.shift, basic.ood) == (None, None, ())


def test_the_whole_suite_twice_is_the_same_and_survives_json() -> None:
    result = whole()
    assert whole() == result
    assert msgspec.json.decode(msgspec.json.encode(result), type=Evaluation) == result


def test_the_suite_leaves_the_model_in_training_mode_and_scores_it_in_evaluation_mode() -> None:
    model = convolutional().train()
    result = evaluate(model, larger_data(), device="cpu", measures=MEASURES, ood_sets=[others()], max_images=12)
    assert all(module.training for module in model.modules())
    assert int(model[1].num_batches_tracked) == 0
    assert result.top1 == evaluate(model.eval(), larger_data(), device="cpu").top1


def test_the_progress_of_each_measure_reaches_its_end() -> None:
    told: dict[str, list[tuple[int, int]]] = {}
    whole(progress=lambda event: told.setdefault(event.stage, []).append((event.done, event.total)))
    assert [stage.removeprefix("measuring ") for stage in told] == [
        "accuracy and calibration", "attacks", "corruptions", "out-of-distribution detection",
    ]  # fmt: skip
    for steps in told.values():
        assert steps[0][0] == 0
        assert steps[-1][0] == steps[-1][1]
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_what_cannot_be_measured_is_said() -> None:
    tiny = evaluate(network(), small_data(), device="cpu", measures=["shift", "ood"])
    assert (tiny.shift, tiny.ood) == (None, ())
    assert tiny.omitted == (
        "corruptions: images of 8 x 8 pixels, at least 16 x 16 are needed",
        "out-of-distribution detection: no set of images was given",
    )

    class Headless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3 * 16 * 16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return -self.layer(x.flatten(1))  # no module gives the logits

    headless = evaluate(Headless(), larger_data(), device="cpu", measures=["ood"], ood_sets=[others()])
    assert headless.omitted[0].startswith("detectors of features and the spread over dropout masks")
    assert "Mahalanobis" not in headless.ood[0].detectors
    assert headless.ood[0].disagreement is None
    assert "ODIN fixed" in headless.ood[0].detectors


def test_files_are_scored_as_the_same_images_in_memory(tmp_path: Path) -> None:
    data = load_data(write_digits(tmp_path / "photos", train=2, test=3, size=80), image_size=72)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(4, len(data.classes)))
    from_files = evaluate(model, data, device="cpu", measures=["robustness"], max_images=4)
    cached = Images(data.test, data, "cpu").cached()
    assert data.test.paths is not None
    assert cached.split.images is not None
    memory = replace(data, test=cached.split)
    assert evaluate(model, memory, device="cpu", measures=["robustness"], max_images=4) == from_files


def test_bad_questions_are_one_clear_line() -> None:
    with pytest.raises(ValueError, match=r"^measures: "):
        whole(measures=["odin"])
    with pytest.raises(ValueError, match=r"^max_images: "):
        whole(max_images=0)
    with pytest.raises(ValueError, match=r"^precision: 'bf16-mixed', but small gradients"):
        whole(precision="bf16-mixed")
    with pytest.raises(ValueError, match=r"^ood_sets: "):
        whole(ood_sets=[others(), others()])
