"""Promises on test images against literal loops, and the range that chance gives."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from selfdistill.evaluation.promises import check_promises
from selfdistill.evaluation.selective import abstention_threshold
from selfdistill.records import Predictions


def outputs(seed: int, n: int, strength: float = 3.0) -> Predictions:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, n)
    logits = 2 * random.normal(size=(n, 4)) + strength * np.eye(4)[labels]
    return Predictions(logits.astype(np.float32), labels, ("a", "b", "c", "d"))


def test_against_a_literal_loop() -> None:
    validation, test = outputs(0, 400), outputs(1, 600)

    def posteriors(of: Predictions, temperature: float) -> list[list[float]]:
        found = []
        for z in of.logits.astype(float):
            e = [np.exp(value / temperature) for value in z]
            found.append([value / sum(e) for value in e])
        return found

    def loss(log_t: float) -> float:
        p = posteriors(validation, float(np.exp(log_t)))
        return -float(np.mean([np.log(row[y]) for row, y in zip(p, validation.labels, strict=True)]))

    temperature = float(np.exp(minimize_scalar(loss, bracket=(-1, 1)).x))
    p_val, p = posteriors(validation, temperature), posteriors(test, temperature)
    scores = sorted(1 - row[y] for row, y in zip(p_val, validation.labels, strict=True))
    limit = scores[361 - 1]  # ceil(401 * 0.9) = 361
    sets = [[c for c in range(4) if 1 - row[c] <= limit + 1e-6] for row in p]
    right = [row.index(max(row)) == y for row, y in zip(p_val, validation.labels, strict=True)]
    threshold = abstention_threshold([max(row) for row in p_val], right, 0.2).threshold
    answered = [at for at, row in enumerate(p) if max(row) >= threshold - 1e-6]
    wrong = sum(p[at].index(max(p[at])) != test.labels[at] for at in answered)
    found = check_promises(validation, test, risk=0.2)
    assert (found.n_val, found.n) == (400, 600)
    assert found.covered == pytest.approx(np.mean([y in s for s, y in zip(sets, test.labels, strict=True)]), abs=2e-3)
    assert found.size == pytest.approx(np.mean([len(s) for s in sets]), abs=2e-3)
    assert found.empty == pytest.approx(np.mean([not s for s in sets]), abs=2e-3)
    assert found.answered == pytest.approx(len(answered) / 600, abs=2e-3)
    assert found.error == pytest.approx(wrong / len(answered), abs=2e-3)


def test_the_usual_range_holds_19_of_20_draws() -> None:
    inside = []
    for seed in range(300):
        found = check_promises(outputs(2 * seed, 99), outputs(2 * seed + 1, 200))
        low, high = found.usual
        inside.append(low <= found.covered <= high)
    assert 0.91 <= np.mean(inside) <= 0.99


def test_what_cannot_be_promised_is_none() -> None:
    found = check_promises(outputs(0, 50, strength=0.0), outputs(1, 50, strength=0.0))
    assert found.answered is found.error is None
    assert found.covered > 0.7


def test_too_few_validation_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^coverage: "):
        check_promises(outputs(0, 8), outputs(1, 50))
