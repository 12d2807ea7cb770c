"""The predictions that runs keep beside their records, and what the seeds of a method reach together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np

from selfdistill.evaluation.promises import Promises, check_promises
from selfdistill.records import VALIDATION, EnsembleRecord, Evaluation, Predictions, RunRecord
from selfdistill.report.measured import Measured, parts

NOT_KEPT = (
    "Some runs keep no predictions, being of an earlier version or of very many images: without them no classes, "
    "pictures and ensembles can be shown."
)
_LEAST = 1e-300  # a probability of 0 has no logarithm


def run_folder(record: RunRecord, folders: Sequence[Path]) -> Path | None:
    """The folder of a run, at or below one of some folders; None if it is not there."""
    near = (path for folder in folders for path in (folder / record.name, folder))
    below = (path.parent for folder in folders for path in sorted(folder.rglob("result.json")))
    return next((path for path in chain(near, below) if _is_of(record, path / "result.json")), None)


def _is_of(record: RunRecord, result: Path) -> bool:
    if not result.is_file():
        return False
    found = RunRecord.load(result)
    return (found.name, found.method, found.seed, found.date) == (record.name, record.method, record.seed, record.date)


def kept_predictions(runs: Sequence[Measured[RunRecord]], folders: Sequence[Path]) -> list[Measured[Predictions]]:
    """The predictions of each method by seed; methods and seeds without them are left out."""

    def load(record: RunRecord) -> Predictions | None:
        run = run_folder(record, folders)
        return None if run is None else Predictions.load(run, record.evaluation.top1)

    return parts(runs, load)


def kept_promises(runs: Sequence[Measured[RunRecord]], folders: Sequence[Path]) -> list[Measured[Promises]]:
    """What validation images promised and test images showed, by method and seed; those without such are left out."""

    def check(record: RunRecord) -> Promises | None:
        run = run_folder(record, folders)
        outputs = None if run is None else Predictions.load(run, None, VALIDATION)
        test = None if run is None else Predictions.load(run, record.evaluation.top1)
        with suppress(ValueError):  # of other classes, or too few
            return None if outputs is None or test is None else check_promises(outputs, test)
        return None

    return parts(runs, check)


def ensembles(methods: Sequence[Measured[Predictions]]) -> list[EnsembleRecord]:
    """For each method with several seeds, the evaluation of the mean of its networks' posteriors."""
    return [
        EnsembleRecord(method=method.name, seeds=tuple(method.by_seed), evaluation=_of_mean(method.values))
        for method in methods
        if len(method.by_seed) > 1 and all(np.array_equal(one.labels, method.values[0].labels) for one in method.values)
    ]


def _of_mean(networks: Sequence[Predictions]) -> Evaluation:
    import torch

    from selfdistill.evaluation.suite import score  # needs torch, and a report of records does not

    mean = np.mean([network.probabilities for network in networks], axis=0)
    return score(torch.from_numpy(np.log(mean.clip(_LEAST))), torch.from_numpy(networks[0].labels))
