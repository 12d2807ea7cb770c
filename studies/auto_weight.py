"""How to find the weight of SD-Dropout: fixed ones and four rules, on a small network that trains in a second.

uv run python studies/auto_weight.py       an hour on one core; adds what is missing to results/auto_weight.jsonl

A perceptron with one hidden layer of D units on 5, 10 or 30 images per class of scikit-learn's digits; the other images
are the test images. SGD with momentum, one cycle, batches of 32, noise on the pixels; 4 seeds, each with images of its
own.

closed form: measure D_eff after a first training by cross-entropy of a fifth of the steps, and take `closed_form`.
training: hold the cross-entropy of the training batches at 0.126, that of the paper's runs.
held-out: hold out a fifth of the training images, and follow the gap on them every 25 steps (`AutoWeight`).
held-out, then all: train once more on all of them, with the weight that was found.
"""

import itertools
import json
import math
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import torch
from archive import RESULTS
from linked import linked_table
from sklearn.datasets import load_digits
from torch import Tensor, nn

from selfdistill import SDDropout, SelfDistiller
from selfdistill.data.sets import VAL_FRACTION
from selfdistill.evaluation.suite import score
from selfdistill.methods import parse_method

FILE = RESULTS / "auto_weight.jsonl"
PER_CLASS, HIDDEN, STEPS, SEEDS = (5, 10, 30), (64, 512), (600, 3000), range(4)
FIXED = ("CrossEntropy()", *(f"SDDropout(weight={weight})" for weight in (0.03, 0.1, 0.3)), "SDDropout()")
CLOSED, TRAINING, HELD_OUT, THEN_ALL = "closed form", "training", "held-out", "held-out, then all"
RULES = (*FIXED, CLOSED, TRAINING, HELD_OUT, THEN_ALL)
EVERY, TARGET, NOISE = 25, 0.126, 0.1

Images = tuple[Tensor, Tensor]


def effective_features(features: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """D_eff = (sum_j a_j)² / sum_j a_j², a_j = f_j (w_yj - mean of w_kj, k != y): how many features carry the margin.

    Between 0 and D: 1 where one feature carries it alone, D where all carry the same; 0 where there is no margin.

    Args:
        features: f(x), (N, D).
        weight: of the linear head, (C, D).
        labels: y, (N,).

    Returns:
        (N,)

    Example:
        >>> head = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
        >>> effective_features(torch.tensor([[1.0, 1.0, 1.0], [3.0, 0.0, 0.0]]), head, torch.tensor([0, 0]))
        tensor([3., 1.])
    """
    own = weight[labels]
    others = (weight.sum(dim=0) - own) / (len(weight) - 1)
    shares = features * (own - others)
    return shares.sum(dim=1).square() / shares.square().sum(dim=1).clamp(min=1e-12)


def closed_form(d_eff: float, classes: int, target: float = 0.126, temperature: float = 3.0) -> float:
    """Return the weight at which cross-entropy and penalty balance where the training cross-entropy is ``target``.

    For small differences of the logits, with half of the features dropped, a margin m costs about
    P(m) = 2 m² q (1 - q) / D_eff, with q = 1 / (1 + (C - 1) exp(-m / T)). Cross-entropy pulls with 1 - p, where
    p = exp(-target) is the posterior at T = 1. So weight = (1 - p) / P'(m).

    Example:
        >>> round(closed_form(36, classes=10), 2)
        0.93
    """
    p = math.exp(-target)
    m = math.log((classes - 1) * p / (1 - p))
    q = 1 / (1 + (classes - 1) * math.exp(-m / temperature))
    pull = 2 * q * (1 - q) * (2 * m + m**2 * (1 - 2 * q) / temperature) / d_eff
    return (1 - p) / pull


def draw(per_class: int, seed: int) -> tuple[Images, Images]:
    """Return training and test images, another part for each seed."""
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
    generator = torch.Generator().manual_seed(seed)
    members = [(y == label).nonzero()[:, 0] for label in range(10)]
    kept = torch.cat([of[torch.randperm(len(of), generator=generator)[:per_class]] for of in members])
    rest = torch.ones(len(y), dtype=torch.bool)
    rest[kept] = False
    return (x[kept], y[kept]), (x[rest], y[rest])


def split(images: Images, seed: int) -> tuple[Images, Images]:
    """Hold out about a fifth of each class, another part for each seed."""
    x, y = images
    generator = torch.Generator().manual_seed(77 + seed)
    held = torch.zeros(len(y), dtype=torch.bool)
    for label in y.unique():
        of = (y == label).nonzero()[:, 0]
        count = max(1, round(VAL_FRACTION * len(of)))
        held[of[torch.randperm(len(of), generator=generator)[:count]]] = True
    return (x[~held], y[~held]), (x[held], y[held])


def train(rule: str, images: Images, hidden: int, steps: int, seed: int) -> tuple[nn.Module, SDDropout | None]:
    """Train by a method's expression, by `TRAINING` or by `HELD_OUT`."""
    torch.manual_seed(seed)
    x, y = images
    held: Images | None = None
    if rule == HELD_OUT:
        (x, y), held = split(images, seed)
    method = SDDropout(weight="auto") if rule in (TRAINING, HELD_OUT) else parse_method(rule)
    model = nn.Sequential(nn.Linear(x.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, 10))
    distiller = SelfDistiller(model, method, example_input=x[:2])
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.05, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    smooth = TARGET
    for step in range(1, steps + 1):
        batch = torch.randint(len(y), (min(32, len(y)),))
        loss, _, terms = distiller(x[batch] + NOISE * torch.randn(len(batch), x.shape[1]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if rule == TRAINING and isinstance(method, SDDropout) and method.auto is not None:
            smooth = 0.95 * smooth + 0.05 * float(terms["ce"].detach())
            pull = max(-1.0, min(1.0, math.log(TARGET / max(smooth, 1e-4))))
            method.auto.weight.mul_(math.exp(0.02 * pull)).clamp_(1e-3, 10)
        if held is not None and step % EVERY == 0:
            with torch.no_grad():
                posterior = model(held[0]).softmax(1)
            right = (posterior.argmax(1) == held[1]).float().mean()
            distiller.set_gap(float(posterior.amax(1).mean() - right), EVERY / steps)
    return model, method if isinstance(method, SDDropout) else None


def measure(rule: str, per_class: int, hidden: int, steps: int, seed: int) -> dict[str, Any]:
    """Train by a rule and measure on the test images."""
    images, test = draw(per_class, seed)
    first = {THEN_ALL: HELD_OUT, CLOSED: "CrossEntropy()"}.get(rule, rule)
    model, method = train(first, images, hidden, steps // 5 if rule == CLOSED else steps, seed)
    weight = None if method is None or method.auto is None else method.auto.found
    if rule == CLOSED:
        weight = closed_form(spread(model, images), classes=10)
    if rule in (CLOSED, THEN_ALL):
        model, _ = train(f"SDDropout(weight={weight})", images, hidden, steps, seed)
    with torch.no_grad():
        e, fitted = score(model(test[0]), test[1]), (model(images[0]).argmax(1) == images[1]).float().mean()
    assert e.scaled is not None
    numbers = {"top1": e.top1, "nll": e.nll, "scaled_nll": e.scaled.nll, "gap": e.gap, "train_top1": float(fitted)}
    numbers["d_eff"] = spread(model, images)
    return key(rule, per_class, hidden, steps, seed) | numbers | {"weight": weight}


def spread(model: nn.Module, images: Images) -> float:
    """Return the mean D_eff of a network over images."""
    assert isinstance(model, nn.Sequential)
    head = model[-1]
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        return float(effective_features(model[:-1](images[0]), head.weight, images[1]).mean())


def key(rule: str, per_class: int, hidden: int, steps: int, seed: int) -> dict[str, Any]:
    """Say which training it is."""
    return {"rule": rule, "per_class": per_class, "features": hidden, "steps": steps, "seed": seed}


def load() -> list[dict[str, Any]]:
    """Return the committed rows."""
    return [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.is_file() else []


def settings() -> Iterator[tuple[int, int, int]]:
    """Every setting: images per class, features and steps."""
    return itertools.product(PER_CLASS, HIDDEN, STEPS)


def mean_of(name: str, rows: list[dict[str, Any]], rule: str, setting: tuple[int, int, int]) -> float | None:
    """Return the mean of a number over the seeds; None where there is none."""
    found = [row[name] for row in rows if row == row | key(rule, *setting, row["seed"])]
    return fmean(found) if found else None


def table(names: tuple[tuple[str, str], ...], rules: tuple[str, ...]) -> str:
    """Return the means of some numbers, each with its format: a row for each setting, a column for each rule."""
    rows, lines = load(), []
    for setting in settings():
        cells = []
        for rule in rules:
            means = [(mean_of(name, rows, rule, setting), form) for name, form in names]
            cells.append("<br>".join(format(mean, form) for mean, form in means if mean is not None))
        if any(cells):
            per_class, hidden, steps = setting
            lines.append((f"{per_class} per class, {hidden} features, {steps:,} steps", *cells))
    headings = [rule.replace("SDDropout()", "λ = 1").replace("SDDropout(weight=", "λ = ").strip(")(") for rule in rules]
    return linked_table(("Setting", *headings), lines, words=1)


def rules_table() -> str:
    """Accuracy and NLL of each rule."""
    return table((("top1", ".1%"), ("nll", ".3f")), RULES)


def spreads_table() -> str:
    """D_eff and gap at the ends: without a penalty, and at the paper's weight."""
    return table((("d_eff", ".1f"), ("gap", "+.3f")), ("CrossEntropy()", "SDDropout()"))


def main() -> None:
    """Train what is missing."""
    torch.set_num_threads(1)
    there = load()
    for (per_class, hidden, steps), seed, rule in itertools.product(settings(), SEEDS, RULES):
        wanted = key(rule, per_class, hidden, steps, seed)
        if not any(row == row | wanted for row in there):
            with FILE.open("a") as file:
                file.write(json.dumps(measure(rule, per_class, hidden, steps, seed)) + "\n")


if __name__ == "__main__":
    main()
