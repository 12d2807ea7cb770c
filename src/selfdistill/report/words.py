"""What was run, and how to read it: the paragraphs of a report that are not the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from selfdistill.records import NOT_COMPARED, Evaluation, RunRecord, Summary
from selfdistill.report.measures.calibration import FEW
from selfdistill.report.tables import DASH, Table, column_of, columns_in
from selfdistill.text import format_duration


def what_was_run(records: Sequence[RunRecord]) -> str:
    """One paragraph: data, counts, network, epochs, seeds, device."""
    run, data = records[0], records[0].data
    methods = dict.fromkeys(record.method for record in records)
    seeds = sorted({record.seed for record in records})
    of_seeds = "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    weights = run.recipe.weights
    start = "from scratch" if weights == "none" else f"from pretrained weights ({weights})"
    sentences = [
        f"{data.name}: {data.train_n:,} training images and {data.test_n:,} test images "
        f"({data.test_split_description}) of {data.classes} classes.",
        f"{run.recipe.model} with {run.parameters:,} parameters, "
        f"trained for {run.epochs} epoch{'s' * (run.epochs != 1)} {start}.",
        f"{len(methods)} method{'s' * (len(methods) != 1)}, {of_seeds} ({', '.join(map(str, seeds))}): {len(records)} "
        f"run{'s' * (len(records) != 1)}, {format_duration(sum(record.seconds for record in records))} in all on "
        f"{', '.join(dict.fromkeys(record.device for record in records))}.",
    ]
    skipped = max(record.data.skipped for record in records)
    if skipped:
        sentences.insert(1, f"{skipped:,} unreadable file{'s' * (skipped != 1)} left out.")
    return " ".join(sentences)


def evidence(records: Sequence[RunRecord], summary: Summary, method: str) -> str:
    """What a verdict on a method stands on: seeds, test images, steps, and how far both networks fit their training."""
    run, first = records[0], summary.methods[0]
    seeds = dict.fromkeys(len(summary.seeds[m]) for m in (first, method))
    steps = dict.fromkeys(_steps(r) for r in records if r.method in (first, method))
    text = (
        f"{' and '.join(map(str, seeds))} seed{'s' * (seeds != {1: None})}, {run.evaluation.n:,} test images, "
        f"{run.epochs:,} epoch{'s' * (run.epochs != 1)}, {' and '.join(steps)} optimiser steps."
    )
    fitted = [
        f"{m} {column_of('train_top1').with_unit(found.mean)}"
        for m in dict.fromkeys((first, method))
        if (found := summary.statistics.get((m, "train_top1"))) is not None
    ]
    if fitted:
        text += f" Right on the training images: {', '.join(fitted)}."
    return text + (" A difference whose interval holds zero may be chance." if method != first else "")


def _steps(record: RunRecord) -> str:
    from selfdistill.training.record import optimiser_steps  # needs torch, and a table of records does not

    try:
        return f"{optimiser_steps(record):,}"
    except ValueError:  # a method of the user's own: how it groups its images is not known here
        return "an unknown number of"


def protocol(records: Sequence[RunRecord], *, compared: bool) -> list[str]:
    """How every number was made: epoch policy, ECE, test images, intervals."""
    run, evaluation = records[0], records[0].evaluation
    headline = f"Headline numbers are of the {run.policy} ({run.epochs}), never of the best one."
    if run.recipe.keep == "best":
        headline = f"Headline numbers are of the epoch that was best on the {run.data.val_n:,} validation images."
    notes = [
        f"{headline} The test images choose nothing; the best-epoch column is chosen on them and therefore optimistic.",
        f"The test images are: {run.data.test_split_description}. Every run is scored on the same "
        f"{evaluation.n:,}; with that many, one accuracy is known to about {standard_error(evaluation)}, whatever the "
        "seeds say.",
        f"{ece_protocol(evaluation)} In the diagrams a bin of fewer than {FEW} images is pale.",
    ]
    if evaluation.train_n:
        notes.append(
            f"Train top-1: {evaluation.train_n:,} training images, without augmentation, in evaluation mode. "
            "The training curve instead is the running accuracy on augmented images, while the weights change."
        )
    if len({record.seed for record in records}) > 1:
        notes.append("± is the standard deviation over seeds. Reliability diagrams and their counts pool the seeds.")
    notes += _measuring(records)
    if compared:
        notes.append(
            "Differences are paired by seed; the interval is Student's t at 95 %. No correction is made for looking "
            "at several: where nothing differs, about one interval in twenty misses zero by chance."
        )
    return notes


def standard_error(evaluation: Evaluation) -> str:
    """How far chance in the test images moves an accuracy."""
    error = 100 * (evaluation.top1 * (1 - evaluation.top1) / evaluation.n) ** 0.5
    return f"±{error:.1f} points (one standard error)"


def ece_protocol(evaluation: Evaluation) -> str:
    """How the ECE was measured."""
    return (
        f"ECE: Eq. 12 of the paper with {evaluation.bins} equal-width bins on the largest softmax probability at "
        "temperature 1, a fraction. It has no sign, so the gap (mean confidence minus accuracy) stands beside it."
    )


def incomparable_metrics(summary: Summary) -> list[str]:
    """The metrics of which no difference is given, since the runs were not measured in the same way."""
    first = summary.methods[0]
    found = [
        column.title
        for column in columns_in("differences")
        if (first, column.metric) in summary.statistics
        and any((m, column.metric) in summary.statistics for m in summary.methods[1:])
        and not any((m, column.metric) in summary.differences for m in summary.methods[1:])
    ]
    if not found:
        return []
    return [
        f"No difference is given in {', '.join(found)}: the runs were measured on other images or in other ways. "
        "Evaluate them all with the same options."
    ]


def missing_measures(records: Sequence[RunRecord]) -> list[str]:
    """What was asked for and could not be measured, and of which methods where it is not all."""
    lines = dict.fromkeys(line for record in records for line in record.evaluation.omitted)
    methods = dict.fromkeys(record.method for record in records)
    notes = []
    for line in lines:
        of = [m for m in methods if any(r.method == m and line in r.evaluation.omitted for r in records)]
        notes.append(f"Not measured: {line}" + ("" if len(of) == len(methods) else f" ({', '.join(of)})"))
    return notes


def _measuring(records: Sequence[RunRecord]) -> list[str]:
    """On what the measures beyond accuracy were taken, where records say so; and what could not be."""
    places = [place for record in records if (place := record.evaluation.measured)]
    if not places:
        return missing_measures(records)
    devices = ", ".join(dict.fromkeys(place.device for place in places))
    seconds = format_duration(sum(place.seconds for place in places) / len(places))
    return [
        f"The measures beyond accuracy and ECE were taken on {devices}, {seconds} a run.",
        *missing_measures(records),
    ]


def spread(summary: Summary) -> str:
    """What stands after a mean, in one line above the tables."""
    most = max(map(len, summary.seeds.values()))
    return "mean ± standard deviation over seeds" if most > 1 else "one seed, so no spread can be given"


def recipe_yaml(records: Sequence[RunRecord]) -> str:
    """The recipe that the runs share, as YAML."""
    shared = {key: value for key, value in records[0].recipe_values.items() if key not in NOT_COMPARED}
    return yaml.safe_dump(shared, sort_keys=False, allow_unicode=True).rstrip()


def versions(records: Sequence[RunRecord]) -> Table:
    """Where and with what: one value, or several where the runs differ."""

    def every(values: Sequence[Any]) -> str:
        return ", ".join(dict.fromkeys(DASH if v is None else str(v) for v in values))

    rows = [(name, every([r.versions.get(name) for r in records])) for name in records[0].versions]
    rows += [
        ("device", every([r.device for r in records])),
        ("CPU threads", every([r.threads for r in records])),
        ("commit", every([r.commit for r in records])),
        ("recipe", every([r.comparable_key for r in records])),
        ("last run finished", max(r.date for r in records)),
    ]
    places = [place for r in records if (place := r.evaluation.measured)]
    if places:
        rows += [
            ("measured: what", every([", ".join(place.config.measures) or DASH for place in places])),
            (
                "measured: PGD and own corruptions",
                every([f"at most {place.config.max_images:,} images" for place in places]),
            ),
            (
                "measured: with",
                every([", ".join(f"{k} {v}" for k, v in place.versions.items()) or DASH for place in places]),
            ),
            ("measured: device", every([place.device for place in places])),
            ("measured: CPU threads", every([place.threads for place in places])),
            ("measured: commit", every([place.commit for place in places])),
            ("measured: last", max(place.date for place in places)),
        ]
    return Table(("What", "Value"), tuple(rows))


def run_table(records: Sequence[RunRecord]) -> Table:
    """One row per run, for a reader who trusts no mean."""
    visible = [c for c in columns_in("quality", "runs") if any(r.metric(c.metric) is not None for r in records)]
    found = any(r.recipe.auto_weight is not None for r in records)
    rows = tuple(
        (
            r.method,
            str(r.seed),
            *([] if not found else [DASH if (weight := r.recipe.auto_weight) is None else f"{weight:.3g}"]),
            *(DASH if (v := r.metric(c.metric)) is None else c.number(v) for c in visible),
            r.date[:10],
        )
        for r in records
    )
    return Table(("Method", "Seed", *(["Weight found"] if found else []), *(c.heading for c in visible), "Date"), rows)
