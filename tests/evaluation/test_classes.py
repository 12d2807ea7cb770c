import msgspec
import numpy as np
import pytest
import torch
from sklearn import metrics

from selfdistill.evaluation.accuracy import class_scores, confusion_matrix
from selfdistill.evaluation.suite import score
from selfdistill.records import Evaluation


@pytest.mark.parametrize(("seed", "present", "answers"), [(0, 5, 5), (1, 3, 5), (2, 5, 2)])
def test_scores_are_those_of_scikit_learn(seed: int, present: int, answers: int) -> None:
    random = np.random.default_rng(seed)
    y, answer = random.integers(0, present, 60), random.integers(0, answers, 60)
    counts = confusion_matrix(y, answer, 5)
    assert np.array_equal(counts, metrics.confusion_matrix(y, answer, labels=range(5)))
    scores = class_scores(counts)
    wanted = metrics.precision_recall_fscore_support(y, answer, labels=range(5), zero_division=np.nan)
    for ours, theirs in zip((scores.precision, scores.recall, scores.f1), wanted, strict=False):
        assert [np.nan if value is None else value for value in ours] == pytest.approx(theirs.tolist(), nan_ok=True)
    in_use = np.union1d(y, answer)
    assert scores.macro_f1 == pytest.approx(
        metrics.f1_score(y, answer, average="macro", labels=in_use, zero_division=0)
    )
    seen = answer < present  # scikit-learn warns of answers that no label has
    if seen.all():
        assert scores.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(y, answer))
    whole = np.zeros((5, 5), int)
    for true, other, n in scores.confusion:
        whole[true, other] = n
    assert np.array_equal(whole, counts)


def test_a_record_holds_them_and_one_without_is_read() -> None:
    evaluation = score(torch.eye(3)[[0, 0, 2, 1]], torch.tensor([0, 1, 2, 1]))
    assert evaluation.classes is not None
    assert evaluation.classes.confusion == ((0, 0, 1), (1, 0, 1), (1, 1, 1), (2, 2, 1))
    assert evaluation.per_class == evaluation.classes.recall == (1.0, 0.5, 1.0)
    values = msgspec.to_builtins(evaluation)
    assert msgspec.convert(values, Evaluation) == evaluation
    del values["classes"]
    assert msgspec.convert(values, Evaluation).classes is None
