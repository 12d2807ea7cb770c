"""Small tables of one thing: a network's evaluation, the methods there are."""

import inspect

import selfdistill.methods
from selfdistill.evaluate.suite import Evaluation
from selfdistill.method import Needs
from selfdistill.report.tables import QUALITY, Table


def evaluation_table(evaluation: Evaluation) -> Table:
    """One row a metric, with what it means."""
    rows = [
        (column.heading, column.number(value), column.note)
        for column in QUALITY
        if (value := getattr(evaluation, column.metric)) is not None
    ]
    if evaluation.train_top1 is not None:
        rows.append(
            ("Train top-1 (%)", f"{evaluation.train_top1:.2%}"[:-1], f"on {evaluation.train_n:,} training images")
        )
    return Table(("Metric", "Value", f" on {evaluation.n:,} test images"), tuple((a, b, f" {c}") for a, b, c in rows))


def method_lines() -> list[str]:
    """Each method with its arguments and their defaults, what it is, and what it needs of a batch."""
    lines = []
    for name in selfdistill.methods.__all__:
        kind = getattr(selfdistill.methods, name)
        arguments = ", ".join(
            f"{parameter.name}={parameter.default!r}" for parameter in inspect.signature(kind).parameters.values()
        )
        meaning = (inspect.getdoc(kind) or "").splitlines()[0]
        lines += [f"{name}({arguments})", f"    {meaning} Needs {needs_in_words(kind.needs)}."]
    return lines


def needs_in_words(needs: Needs) -> str:
    """Return what a method asks of a batch.

    Example:
        >>> needs_in_words(Needs(views=2, index=True)), needs_in_words(Needs())
        ('2 views of each image, positions of the images', 'nothing more')
    """
    words = []
    if needs.views > 1:
        words.append(f"{needs.views} views of each image")
    if needs.pair is not None:
        words.append(f"{needs.pair} image of each image's class")
    if needs.index:
        words.append("positions of the images")
    if needs.previous:
        words.append("the previous batch")
    if needs.stages:
        words.append("inner stages of the network")
    return ", ".join(words) or "nothing more"
