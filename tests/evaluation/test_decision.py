from pathlib import Path

import numpy as np
import pytest
import torch

from selfdistill.errors import ArgumentError
from selfdistill.evaluation.conformal import Conformal
from selfdistill.evaluation.decision import Decisions, Rules, describe_decisions, prepare_decisions
from selfdistill.evaluation.ood.detectors import Detectors, fit_detectors
from selfdistill.evaluation.selective import Abstention, abstention_threshold
from selfdistill.records import VALIDATION, Predictions

CLASSES = ("cat", "dog")
Z = torch.tensor([[9.0, 0.0], [0.0, 1.0], [-20.0, -1.0], [0.0, 20.0]])


@pytest.fixture
def calibrated(tmp_path: Path) -> tuple[Path, Predictions]:
    random = np.random.default_rng(0)
    logits = random.normal(size=(600, 2)).astype(np.float32) * 4
    p = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    outputs = Predictions(logits, (random.random(600) < p).astype(np.int64), CLASSES)
    outputs.save(tmp_path, VALIDATION)
    return tmp_path, outputs


def test_without_rules_it_always_answers_at_the_temperature() -> None:
    plain = Decisions(CLASSES, temperature=2.0)
    assert (plain.decide(Z), plain.sets(Z)) == (None, None)
    np.testing.assert_allclose(plain.probabilities(Z), (Z.double() / 2).softmax(dim=1))


def test_unknown_goes_before_not_sure_and_that_before_the_class() -> None:
    detectors = Detectors(thresholds={"energy": 0.5})
    both = Decisions(CLASSES, 1.0, Abstention(0.9, 0.05, 0.5), "energy", detectors)
    assert both.decide(Z) == ["cat", "not sure", "unknown", "dog"]
    assert Decisions(CLASSES, 1.0, ood="energy", detectors=detectors).decide(Z) == ["cat", "dog", "unknown", "dog"]
    warm = Decisions(CLASSES, 8.0, Abstention(0.9, 0.05, 0.5))
    assert warm.decide(Z) == ["not sure", "not sure", "dog", "dog"], "confidence is at the temperature"


def test_a_set_names_its_likeliest_class_first() -> None:
    assert Decisions(CLASSES, conformal=Conformal("thr", 0.75)).sets(Z[:2]) == [("cat",), ("dog", "cat")]
    assert Decisions(CLASSES, conformal=Conformal("thr", 0.1)).sets(Z[1:2]) == [()]


def test_the_rules_are_found_on_the_validation_images(calibrated: tuple[Path, Predictions]) -> None:
    run, outputs = calibrated
    rules = Rules(abstain=0.1, ood="max_softmax", conformal=0.9, sets="raps")
    found = prepare_decisions(run, CLASSES, 1.5, rules)
    p = found.probabilities(torch.from_numpy(outputs.logits))
    assert found.abstention == abstention_threshold(p.max(axis=1), outputs.predicted == outputs.labels, 0.1)
    assert found.detectors is not None
    assert found.detectors.thresholds == fit_detectors(outputs.logits).thresholds
    decided = found.decide(torch.from_numpy(outputs.logits)) or []
    assert 0.9 < np.mean([one != "unknown" for one in decided]) < 1
    sets = found.sets(torch.from_numpy(outputs.logits)) or []
    assert np.mean([CLASSES[y] in one for y, one in zip(outputs.labels, sets, strict=True)]) >= 0.9
    assert len(describe_decisions(found, rules)) == 3


@pytest.mark.parametrize(
    ("rules", "argument"),
    [({"abstain": 0.001}, "abstain"), ({"conformal": 0.999}, "conformal"), ({"ood": "knn"}, "ood")],
)
def test_what_these_images_cannot_give_is_refused(
    calibrated: tuple[Path, Predictions], rules: dict[str, float], argument: str
) -> None:
    with pytest.raises(ArgumentError) as refused:
        prepare_decisions(calibrated[0], CLASSES, 1.0, Rules(**rules))
    assert refused.value.argument == argument


def test_a_run_that_is_not_calibrated_says_how(tmp_path: Path) -> None:
    assert prepare_decisions(tmp_path, CLASSES, 1.0, Rules()).decide(Z) is None
    for damaged in (False, True):
        if damaged:
            (tmp_path / VALIDATION).write_bytes(b"PK")
        with pytest.raises(ValueError, match=r"selfdistill calibrate .* --data"):
            prepare_decisions(tmp_path, CLASSES, 1.0, Rules(ood="energy"))


@pytest.mark.parametrize(
    ("rules", "argument"),
    [({"abstain": 0.0}, "abstain"), ({"conformal": float("nan")}, "conformal"), ({"sets": "aps"}, "sets")],
)
def test_rules_out_of_range_are_refused(rules: dict[str, float], argument: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        Rules(**rules)
    assert refused.value.argument == argument
