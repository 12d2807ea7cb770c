"""Records that look like real ones: the evaluation is computed from random logits, so its numbers agree."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest
import torch

from selfdistill.evaluation.adversarial import EPSILONS, PAPER_EPS
from selfdistill.evaluation.corruptions import CORRUPTIONS, summarise
from selfdistill.evaluation.ood.metrics import score_detector
from selfdistill.evaluation.ood.scores import tuning_size
from selfdistill.evaluation.suite import score
from selfdistill.records import SCHEMA, BestEpoch, Data, Evaluation, RunRecord, recipe_hash
from selfdistill.records.evaluation import OWN, CorruptionAccuracy, OODDisagreement, OODResult, Robustness

MakeRecord = Callable[..., RunRecord]
DETECTORS = ("max softmax", "max logit", "energy", "ODIN fixed", "ODIN released", "Mahalanobis")


def record(
    method: str = "CrossEntropy()",
    seed: int = 0,
    *,
    spread: float = 4.0,
    claim: float = 1.0,
    classes: int = 10,
    epochs: int = 30,
    n: int = 1500,
    data_name: str = "photos",
    recipe: dict[str, object] | None = None,
    suite: bool = False,
    toughness: float = 1.0,
    sets: Sequence[str] = ("photographs", "svhn"),
) -> RunRecord:
    """A run whose labels follow softmax(spread * noise) and whose network claims softmax(claim * spread * noise).

    With `suite`, everything else was measured too; the tougher, the more accuracy is left.
    """
    random = np.random.default_rng([seed, len(method)])
    logits = spread * random.normal(0, 1, (n, classes))
    gumbel = random.gumbel(size=(n, classes))
    labels = (logits + gumbel).argmax(axis=1)
    evaluation = score(torch.tensor(claim * logits), torch.tensor(labels), train_n=5000, train_top1=0.99)
    if suite:
        evaluation = msgspec.structs.replace(
            evaluation,
            robustness=robustness(random, evaluation, toughness),
            shift=shift(random, evaluation, toughness),
            ood=tuple(detection(random, evaluation, toughness, name) for name in sets),
            omitted=("Mahalanobis of one class: no training image",),
        )
    resolved: dict[str, object] = {
        "data": data_name, "image_size": 32, "method": method, "model": "resnet10_cifar", "epochs": epochs, "lr": 0.1,
        "batch_size": 128, "weights": "none", "milestones": [0.5, 0.75], "seed": seed, "threads": 2,
        "classes": classes, "augment": "crop",
    }  # fmt: skip
    resolved.update(recipe or {})
    distilled = "SDDropout" in method
    log = [
        {
            "epoch": e,
            "lr": 0.1,
            "loss": float(2.3 * np.exp(-4 * e / epochs) + 0.02),
            "ce": float(2.3 * np.exp(-4 * e / epochs) * (1 + 0.05 * random.random()) + 0.01),
            **({"sd_dropout": float(0.9 * np.exp(-e / epochs) * (1 + 0.1 * random.random()))} if distilled else {}),
            "train_accuracy": float(0.99 - 0.8 * np.exp(-5 * e / epochs)),
            "test_top1": float(evaluation.top1 - 0.6 * np.exp(-6 * e / epochs) + 0.01 * random.normal()),
            "seconds": 2.0,
            "images_per_second": 2500.0,
        }
        for e in range(1, epochs + 1)
    ]
    return RunRecord(
        schema=SCHEMA,
        name=f"{method}-{seed}",
        method=method,
        seed=seed,
        recipe_values=resolved,
        recipe_hash=recipe_hash(resolved),
        data=Data(
            name=data_name,
            classes=classes,
            train_n=5000,
            test_n=n,
            test_split_description="test folder",
            skipped=0,
        ),
        epochs=epochs,
        policy="last epoch",
        evaluation=evaluation,
        best=BestEpoch(epoch=25, top1=evaluation.top1 + 0.006, policy="best epoch on the test images: optimistic"),
        rows=tuple(log),
        seconds=61.5,
        seconds_per_epoch=2.0 + 0.04 * distilled + 0.01 * seed,
        images_per_second=2500.0,
        parameters=312_474,
        extra_parameters=0,
        peak_memory_bytes=None,
        device="cpu (Example CPU 3 GHz)",
        threads=2,
        versions={"selfdistill": "0.1.0", "torch": "2.15.0", "python": "3.11.2"},
        date=f"2026-11-23T0{seed}:00:00+00:00",
        commit=None,
    )


def robustness(random: np.random.Generator, evaluation: Evaluation, toughness: float) -> Robustness:
    """Accuracies as counts of images, falling with eps, PGD's below FGSM's."""
    n, few = evaluation.n, min(evaluation.n, 1000)

    def left(images: int, halved_at: float) -> tuple[float, ...]:
        noise = 1 + 0.02 * random.normal(size=len(EPSILONS))
        falls = evaluation.top1 * 0.5 ** (np.array(EPSILONS) * 255 / halved_at) * noise
        counts = np.minimum.accumulate(np.round(images * np.minimum(falls, evaluation.top1)))
        return tuple((counts / images).tolist())

    pgd = left(few, 0.7 * toughness)
    pgd_fgsm = tuple(max(pair) for pair in zip(left(few, 2 * toughness), pgd, strict=True))
    return Robustness(
        n=n, clean=evaluation.top1, eps=EPSILONS, fgsm=left(n, 2 * toughness), paper_eps=PAPER_EPS,
        paper=round(n * evaluation.top1 * 0.6) / n, vanished=float(round(n * 0.01) / n), pgd_n=few, pgd_steps=20,
        pgd_clean=round(few * evaluation.top1) / few, pgd=pgd, pgd_fgsm=pgd_fgsm,
    )  # fmt: skip


def shift(
    random: np.random.Generator, evaluation: Evaluation, toughness: float, source: str = OWN
) -> CorruptionAccuracy:
    """Accuracies that fall with the severity."""
    n = min(evaluation.n, 1000)
    falls = {name: random.uniform(0.03, 0.16) / toughness for name in CORRUPTIONS}
    rates = {name: [evaluation.top1 * 0.9 ** (10 * fall * s) for s in range(1, 6)] for name, fall in falls.items()}
    return summarise({name: [round(n * v) / n for v in values] for name, values in rates.items()}, n=n, source=source)


def detection(random: np.random.Generator, evaluation: Evaluation, toughness: float, name: str) -> OODResult:
    """Normal scores, the outer ones lower."""
    n_in, n_out = evaluation.n, 562 if name == "photographs" else 2000
    tuned = (tuning_size(n_in), tuning_size(n_out))
    detectors = {}
    for i, detector in enumerate(DETECTORS):
        less = tuned if detector == "ODIN released" else (0, 0)
        inside = random.normal(0.5 + 0.2 * i * toughness, 1, n_in - less[0])
        outside = random.normal(0, 1, n_out - less[1])
        if detector == "max softmax":
            inside, outside = (1 / (1 + np.exp(-scores)) * 0.9 + 0.1 for scores in (inside, outside))
        if detector == "ODIN fixed":
            inside, outside = (0.1 + 1e-5 * scores for scores in (inside, outside))
        eps = {"ODIN fixed": 0.0014, "ODIN released": int(random.integers(0, 21)) / 5000}.get(detector)
        detectors[detector] = score_detector(inside, outside, eps)
    spread = 0.02 / toughness * (1 + 0.05 * float(random.random()))
    return OODResult(
        name=name, n=n_out, prepared="shorter side to 32 px, central square", detectors=detectors, tuned_on=tuned,
        temperature=1000.0,
        disagreement=OODDisagreement(
            masks=20, p=0.5, temperature=1.0, seeds=5, in_distribution=spread, ood=1.4 * spread
        ),
    )  # fmt: skip


@pytest.fixture
def make_record() -> MakeRecord:
    return record


@pytest.fixture(scope="session")
def comparison() -> list[RunRecord]:
    """Four methods, three seeds: one improves calibration, one overshoots."""
    methods = [
        ("CrossEntropy()", 4.0, 2.2),
        ("LabelSmoothing()", 4.1, 0.85),
        ("SDDropout(weight=0.1)", 5.0, 1.1),
        ("SDDropout()", 3.4, 0.35),
    ]
    return [record(m, seed, spread=spread, claim=claim) for m, spread, claim in methods for seed in range(3)]


@pytest.fixture(scope="session")
def whole_suite() -> list[RunRecord]:
    """Three methods, three seeds, all measures: one tougher than cross-entropy, one less so."""
    methods = [("CrossEntropy()", 4.0, 2.2, 1.0), ("SDDropout()", 4.4, 1.2, 1.6), ("LabelSmoothing()", 4.0, 0.8, 0.6)]
    return [
        record(method, seed, spread=spread, claim=claim, suite=True, toughness=toughness)
        for method, spread, claim, toughness in methods
        for seed in range(3)
    ]
