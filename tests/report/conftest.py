"""Records that look like real ones: the evaluation is computed from random logits, so its numbers agree."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from selfdistill.evaluate.suite import score
from selfdistill.records import SCHEMA, RunRecord, recipe_hash

MakeRecord = Callable[..., RunRecord]


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
) -> RunRecord:
    """A run whose labels follow softmax(spread * noise) and whose network claims softmax(claim * spread * noise)."""
    random = np.random.default_rng([seed, len(method)])
    logits = spread * random.normal(0, 1, (n, classes))
    gumbel = random.gumbel(size=(n, classes))
    labels = (logits + gumbel).argmax(axis=1)
    evaluation = score(torch.tensor(claim * logits), torch.tensor(labels), train_n=5000, train_top1=0.99)
    resolved: dict[str, object] = {
        "data": data_name, "image_size": 32, "method": method, "model": "resnet10_cifar", "epochs": epochs, "lr": 0.1,
        "batch_size": 128, "weights": "none", "milestones": [0.5, 0.75], "seed": seed, "threads": 2,
    }  # fmt: skip
    resolved.update(recipe or {})
    distilled = "SDDropout" in method
    log = [
        {
            "epoch": e,
            "lr": 0.1,
            "loss": 2.3 * np.exp(-4 * e / epochs) + 0.02,
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
        recipe=resolved,
        recipe_hash=recipe_hash(resolved),
        data={
            "name": data_name,
            "classes": classes,
            "train_n": 5000,
            "test_n": n,
            "test_is": "test folder",
            "skipped": 0,
        },
        epochs=epochs,
        policy="last epoch",
        evaluation=evaluation.to_dict(),
        best={"epoch": 25, "top1": evaluation.top1 + 0.006, "policy": "best epoch on the test images: optimistic"},
        log=log,
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
