"""How good are abstention, "unknown" and prediction sets? Two data sets, three or four methods, three seeds.

uv run python studies/confidence.py --caltech DIR --weights FILE     half an hour on one core; trains and measures what
                                                                     is missing (CIFAR-100 in data/cifar100)
uv run python docs/make.py                                           writes the page from results/confidence.jsonl

Each seed draws training and validation images of its own from the training part. The classes behind the first ones are
never trained on: their test images are the unknown ones.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from archive import RESULTS

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData, Split, load_data
from selfdistill.evaluation.conformal import Score
from selfdistill.evaluation.images import Images, Reading, read_features
from selfdistill.evaluation.ood.detectors import fit_detectors
from selfdistill.evaluation.ood.measure import OF_FEATURES_IN_WORDS
from selfdistill.evaluation.ood.metrics import ood_metrics
from selfdistill.evaluation.promises import check_promises
from selfdistill.evaluation.suite import score
from selfdistill.head import find_head
from selfdistill.network import default_device
from selfdistill.records import Predictions, paired
from selfdistill.report.tables import DASH, Table, markdown
from selfdistill.tap import Head
from selfdistill.text import join_names
from selfdistill.training import LoadedModel, load_run, train
from selfdistill.training.record import provenance
from selfdistill.training.run import as_pretrained

Row = dict[str, Any]

METHODS = ("CrossEntropy()", "LabelSmoothing()", "SDDropout(weight=0.1)", "SDDropout()")
SEEDS = range(3)
RUNS, FILE = Path("runs") / "confidence", RESULTS / "confidence.jsonl"
RISKS, COVERAGE, MOST_UNKNOWN = (0.05, 0.1, 0.2), 0.9, 2000
SETS: tuple[Score, ...] = ("thr", "aps", "raps")
WORDS = {str(name): words for name, words in OF_FEATURES_IN_WORDS.items()}

MEASURES: dict[str, tuple[Callable[[Row], float | None], int]] = {
    "accuracy": (lambda row: row["top1"], 1),
    "ECE": (lambda row: row["ece"], -1),
    "answered share at an error of at most 5 %": (lambda row: row["abstain"][0]["answered"], 1),
    "unknown images stopped by energy": (lambda row: row["detectors"]["energy"]["unknown"], 1),
    "unknown images stopped by ViM": (lambda row: row["detectors"]["vim"]["unknown"], 1),
    "classes in a set": (lambda row: row["sets"]["thr"]["size"], -1),
}
"""What is compared with cross-entropy: a number of a row, and whether more (1) or less (-1) of it is better."""


@dataclass(frozen=True)
class Setting:
    """A data set, cut into known and unknown classes, and how a network is trained on it.

    Attributes:
        name: in words.
        known: the first so many classes are known.
        per_class: training images of each.
        val_per_class: validation images of each.
        recipe: everything but method and seed.
        methods: what is compared, cross-entropy first.
    """

    name: str
    known: int
    per_class: int
    val_per_class: int
    recipe: TrainConfig
    methods: tuple[str, ...]

    def load(self) -> ImageData:
        """Load all classes."""
        recipe = self.recipe
        return as_pretrained(recipe, load_data(recipe.data, root=Path(recipe.data_root), image_size=recipe.image_size))

    def draw(self, whole: ImageData, seed: int) -> ImageData:
        """Return the known classes, with training and validation images that the seed draws."""
        generator = torch.Generator().manual_seed(seed)
        train, val = [], []
        for label in range(self.known):
            of_class = (whole.train.labels == label).nonzero()[:, 0]
            of_class = of_class[torch.randperm(len(of_class), generator=generator)]
            train.append(of_class[: self.per_class])
            val.append(of_class[self.per_class : self.per_class + self.val_per_class])
        return replace(
            whole,
            classes=whole.classes[: self.known],
            train=whole.train.select(torch.cat(train).sort().values),
            val=whole.train.select(torch.cat(val).sort().values),
            val_split_description=f"{self.val_per_class} training images of each class",
            test=of_classes(whole.test, range(self.known)),
        )


def of_classes(split: Split, labels: range) -> Split:
    """Return the images of some classes."""
    return split.select(((split.labels >= labels.start) & (split.labels < labels.stop)).nonzero()[:, 0])


def settings(caltech: Path, weights: Path, data_root: str) -> tuple[Setting, Setting]:
    """Return the two settings; EfficientNet-Lite0's head alone is trained, ResNet-10 from scratch."""
    fine_tuned = TrainConfig(
        data=str(caltech),
        model="timm:tf_efficientnet_lite0",
        weights=str(weights),
        image_size=96,
        freeze="backbone",
        workers=0,
        eval_every=10**6,
    )
    scratch = TrainConfig(
        data="cifar100",
        data_root=data_root,
        model="resnet10_cifar",
        width=16,
        batch_size=64,
        epochs=10,
        schedule="one_cycle",
        channels_last=True,
        eval_every=10**6,
    )
    return (
        Setting("Caltech-101", 81, 20, 10, fine_tuned, METHODS),
        Setting("CIFAR-100", 10, 350, 150, scratch, METHODS[:3]),
    )


def read(loaded: LoadedModel, data: ImageData, split: Split, same: Reading | None) -> Reading:
    """Read some images; by the head alone where another network with the same backbone has read them."""
    if same is None:
        images = Images(split, data, device=default_device(), batch_size=64)
        return read_features(loaded.model.to(default_device()), images.batches())
    size = data.image_size
    head = Head(loaded.model.get_submodule(find_head(loaded.model, torch.zeros(1, 3, size, size))))
    with torch.no_grad():
        return replace(same, logits=head(same.features), head=head)


def measure(run: Path, data: ImageData, unknown: Split, same: list[Reading]) -> tuple[Row, list[Reading]]:
    """Find everything on a run's validation images and try it on its test images and on the unknown ones.

    Args:
        run: its folder.
        data: its images.
        unknown: of other classes.
        same: what another network with the same backbone read of the same images; empty: there is none.
    """
    loaded = load_run(run)
    assert data.val is not None
    splits = (data.val, data.test, data.train, unknown)
    before: Sequence[Reading | None] = same or [None] * len(splits)
    readings = [read(loaded, data, split, one) for split, one in zip(splits, before, strict=True)]
    val, test, training, others = readings
    outputs = [Predictions(one.logits.numpy(), one.labels.numpy(), data.classes) for one in (val, test)]
    evaluation = score(test.logits, test.labels)
    fitted, detectors = fit_detectors(val.logits, val.features, training), {}
    for name in ("max_softmax", "energy", *fitted.of_features):
        threshold = fitted.thresholds[name]
        known, stopped = (fitted.scores(name, one.logits, one.features) for one in (test, others))
        detectors[name] = {
            "known": float(np.mean(known < threshold)),
            "unknown": float(np.mean(stopped < threshold)),
            "auroc": ood_metrics(known, stopped).auroc,
        }
    sets = {name: check_promises(*outputs, coverage=COVERAGE, sets=name) for name in SETS}
    row = {
        "n": {"train": len(data.train), "val": len(data.val), "test": len(data.test), "unknown": len(unknown)},
        "classes": len(data.classes),
        "temperature": loaded.temperature,
        **{name: getattr(evaluation, name) for name in ("top1", "ece", "gap", "nll")},
        "abstain": [asdict(check_promises(*outputs, risk=risk)) for risk in RISKS],
        "sets": {name: asdict(found) for name, found in sets.items()},
        "usual": sets["thr"].usual,
        "detectors": detectors,
    }
    return row, readings


def load() -> list[Row]:
    """Return the committed rows."""
    return [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.is_file() else []


def measured_how(rows: list[Row]) -> str:
    """Say on how many images and networks the numbers stand."""
    said = []
    for name, of_data in by_data(rows).items():
        n, seeds = of_data[0]["n"], min(len(found) for data, _, found in groups(rows) if data == name)
        said.append(
            f"{name}: {of_data[0]['classes']} known classes; {n['train']:,} training, {n['val']:,} validation, "
            f"{n['test']:,} test and {n['unknown']:,} unknown images; {seeds} networks of each method."
        )
    return " ".join(said)


def by_data(rows: list[Row]) -> dict[str, list[Row]]:
    """Return the rows of each data set."""
    return {name: [row for row in rows if row["data"] == name] for name in dict.fromkeys(row["data"] for row in rows)}


def groups(rows: list[Row]) -> list[tuple[str, str, list[Row]]]:
    """Return data set, method and rows of each group of networks that differ by the seed alone."""
    return [
        (name, method, found)
        for name, of_data in by_data(rows).items()
        for method in METHODS
        if (found := [row for row in of_data if row["method"] == method])
    ]


def percent(values: list[float], of: int = 0) -> str:
    """Return the mean in %, and how many networks it is of where others have no number."""
    if not values:
        return DASH
    return f"{100 * fmean(values):.1f}" + (f" ({len(values)} of {of})" if len(values) < of else "")


def abstention_table(rows: list[Row]) -> str:
    """One row for each group: the share that is answered and the error rate there, for each error that is allowed."""
    cells = []
    for name, method, found in groups(rows):
        numbers = [
            percent([kept for row in found if (kept := row["abstain"][at][what]) is not None], len(found))
            for at in range(len(RISKS))
            for what in ("answered", "error")
        ]
        cells.append((name, method, percent([row["top1"] for row in found]), *numbers))
    headings = [f"{what}, at most {risk:.0%}".replace("%", " %") for risk in RISKS for what in ("Answered", "Error")]
    return markdown(Table(("Data set", "Method", "Top-1 (%)", *headings), tuple(cells)))


def sets_table(rows: list[Row]) -> str:
    """One row for each group: how often the sets hold the right class, and how many classes they hold."""
    cells = []
    for name, method, found in groups(rows):
        numbers = []
        for sets in SETS:
            of_sets = [row["sets"][sets] for row in found]
            numbers += [percent([one["covered"] for one in of_sets]), f"{fmean(one['size'] for one in of_sets):.2f}"]
        empty = percent([row["sets"]["thr"]["empty"] for row in found])
        cells.append((name, method, *numbers[:2], empty, *numbers[2:]))
    headings = ("THR: coverage (%)", "classes", "empty (%)", "APS: coverage (%)", "classes", "RAPS: coverage (%)")
    return markdown(Table(("Data set", "Method", *headings, "classes"), tuple(cells)))


def unknown_table(rows: list[Row], *, auroc: bool = False) -> str:
    """One row for each data set and detector: the unknown images that are stopped, and the known ones; or the AUROC."""
    cells = []
    for name, of_data in by_data(rows).items():
        for detector in of_data[0]["detectors"]:
            numbers = []
            for method in METHODS:
                found = [row["detectors"][detector] for row in of_data if row["method"] == method]
                known, unknown, area = (percent([one[what] for one in found]) for what in ("known", "unknown", "auroc"))
                numbers.append("" if not found else area if auroc else f"{unknown}, {known}")
            cells.append((name, WORDS.get(detector, detector.replace("_", " ")), *numbers))
    return markdown(Table(("Data set", "Detector", *METHODS), tuple(cells)))


def promise_findings(rows: list[Row]) -> str:
    """Say how often what validation images promise is kept."""
    promised = [one for row in rows for one in row["abstain"] if one["error"] is not None]
    kept = sum(one["error"] <= one["risk"] for one in promised)
    missing = sum(one["answered"] is None for row in rows for one in row["abstain"])
    inside = sum(row["usual"][0] <= row["sets"]["thr"]["covered"] <= row["usual"][1] for row in rows)
    stopped = [one["known"] for row in rows for one in row["detectors"].values()]
    lines = [
        f"- Abstention: {len(promised)} promises could be made, {missing} could not; the error rate on the test images "
        f"is within the promise in {kept} of the {len(promised)}.",
        f"- Prediction sets (THR): of {len(rows)} networks the coverage of {inside} is where chance puts 95 % of them.",
        f"- Unknown images: the threshold that 5 % of the validation images miss stops {100 * min(stopped):.1f} to "
        f"{100 * max(stopped):.1f} % of the known test images, by the detector and the network.",
    ]
    for name, of_data in by_data(rows).items():
        means = {
            detector: fmean(row["detectors"][detector]["unknown"] for row in of_data)
            for detector in of_data[0]["detectors"]
        }
        best = max(means, key=means.__getitem__)
        lines.append(
            f"- {name}: {WORDS.get(best, best)} stops most unknown images, {100 * means[best]:.1f} % on average over "
            f"the networks; energy, the default, {100 * means['energy']:.1f} %."
        )
    return "\n".join(lines)


def findings(rows: list[Row]) -> str:
    """Say what is better and what worse than cross-entropy by the 95 % intervals, paired by seed."""
    said = []
    for name, method, found in groups(rows):
        if method == METHODS[0]:
            continue
        baseline = [row for row in rows if row["data"] == name and row["method"] == METHODS[0]]
        effects: dict[str, list[str]] = {"better": [], "worse": [], "undecided": []}
        for what, (number, better) in MEASURES.items():
            ours, theirs = (
                {row["seed"]: value for row in of if (value := number(row)) is not None} for of in (found, baseline)
            )
            _, interval = paired(ours, theirs)
            if interval is None:  # no promise could be made
                continue
            low, high = interval
            decided = "undecided" if low <= 0 <= high else "better" if (low > 0) == (better > 0) else "worse"
            effects[decided].append(what)
        parts = [f"{word} in {join_names(names)}" for word, names in effects.items() if names]
        said.append(f"- {name}, `{method}`: {'; '.join(parts)}.")
    return "\n".join(said)


def main() -> None:
    """Train and measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--caltech", type=Path, required=True, help="a folder with train/ and test/")
    parser.add_argument("--weights", type=Path, required=True, help="EfficientNet-Lite0's, for timm")
    parser.add_argument("--data-root", default="data", help="where CIFAR-100 is")
    given = parser.parse_args()
    there = {(row["data"], row["method"], row["seed"]) for row in load()}
    for setting in settings(given.caltech, given.weights, given.data_root):
        whole = setting.load()
        unknown = of_classes(whole.test, range(setting.known, len(whole.classes))).spaced(MOST_UNKNOWN)
        readings: list[Reading] = []
        for seed, method in product(SEEDS, setting.methods):
            if method == METHODS[0] or setting.recipe.freeze == "none":
                readings = []
            if (setting.name, method, seed) in there:
                continue
            data, run = setting.draw(whole, seed), RUNS / setting.name / f"{seed}-{METHODS.index(method)}"
            train(replace(setting.recipe, method=method, seed=seed, threads=1), run, data=data)
            measured, readings = measure(run, data, unknown, readings)
            row = {"data": setting.name, "method": method, "seed": seed} | measured
            with FILE.open("a") as file:
                file.write(json.dumps(row | provenance(default_device())) + "\n")
            print(setting.name, seed, method, f"{row['top1']:.1%}", flush=True)


if __name__ == "__main__":
    main()
