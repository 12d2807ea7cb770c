"""The linear probe of a comparison on pretrained weights: the honest floor, in seconds."""

import time
from dataclasses import replace
from pathlib import Path

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.evaluation.suite import score
from selfdistill.records import LINEAR_PROBE, LinearProbeRecord
from selfdistill.training import random_state
from selfdistill.training.classification import assemble
from selfdistill.training.session import make_fabric


def measure_linear_probe(recipe: TrainConfig, data: ImageData, out: Path) -> LinearProbeRecord:
    """Fit a linear probe to the training images, measure it on the test images, and write ``out/linear_probe.json``.

    The one that is there is returned if it is of the same images and weights.

    Args:
        out: the comparison's folder; it is there.

    Raises:
        ValueError: the model cannot be made as the recipe says.
        OSError: the record cannot be written.
    """
    started = time.perf_counter()
    with random_state.preserved():
        resolved = replace(recipe.resolve(data), linear_probe=False)  # no second one for the head to start from
        task = assemble(resolved, data, make_fabric(resolved)).task
        of = task.feature_key() + ("-balanced" if resolved.balances_classes else "")
        if (known := LinearProbeRecord.beside(out)) is not None and known.of == of:
            return known
        probe, test = task.linear_probe(), task.test_features()
    evaluation = score(probe(test), data.test.labels, train_n=len(data.train))
    record = LinearProbeRecord(
        of=of, evaluation=evaluation, features=test.shape[1], seconds=time.perf_counter() - started
    )
    record.save(out / LINEAR_PROBE)
    return record


def describe_probe(record: LinearProbeRecord) -> str:
    """Return a line on what fine-tuning has to beat."""
    e = record.evaluation
    return (
        f"linear probe on {record.features:,} features of the pretrained weights: test {e.top1:.1%}, NLL {e.nll:.3f}, "
        f"ECE {e.ece:.3f}, {record.seconds:.0f} s; fine-tuning should beat it"
    )
