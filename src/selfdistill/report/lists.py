"""The methods there are, and what they cost."""

import inspect

from selfdistill.method import Needs
from selfdistill.report.tables import DASH, Column, Table
from selfdistill.runs.cost import Costs
from selfdistill.timing.synthetic import example_methods

_EXTRA_TIME = Column("time", "Extra time", "%", 100, 0, signed=True)
_EXTRA_MEMORY = Column("memory", "Extra memory", "%", 100, 0, signed=True)


def method_lines() -> list[str]:
    """Each method with its arguments and their defaults, what it is, and what it needs of a batch."""
    lines = []
    for name, method in example_methods().items():
        arguments = ", ".join(
            argument.name if argument.default is argument.empty else f"{argument.name}={argument.default!r}"
            for argument in inspect.signature(type(method)).parameters.values()
        )
        meaning = (inspect.getdoc(method) or "").splitlines()[0]
        lines += [f"{name}({arguments})", f"    {meaning} Needs {needs_in_words(method.needs)}."]
    return lines


def cost_table(costs: Costs) -> Table:
    """One row per method: what its step takes beside cross-entropy's; the notes say what was measured and what not."""
    rows = [
        (
            name,
            _EXTRA_TIME.number(cost.time - 1),
            _EXTRA_MEMORY.number(cost.memory - 1),
            f"{cost.extra_parameters:,}",
        )
        for name, cost in costs.methods.items()
    ]
    rows += [(name, DASH, DASH, DASH) for name in costs.refused]
    size = f"{costs.bytes / 2**20:,.1f} MiB"
    memory = f"allocates {size} at most" if costs.device.type == "cuda" else f"keeps {size} for its backward pass"
    notes = [
        f"Beside a step of cross-entropy, which takes {costs.seconds:.3g} s and {memory}.",
        *(reason if reason.startswith(name) else f"{name}: {reason}" for name, reason in costs.refused.items()),
    ]
    return Table(("Method", _EXTRA_TIME.heading, _EXTRA_MEMORY.heading, "Extra parameters"), tuple(rows), tuple(notes))


def needs_in_words(needs: Needs) -> str:
    """Return what a method asks of a batch.

    Example:
        >>> needs_in_words(Needs(views=2, index=True)), needs_in_words(Needs())
        ('2 views of each image, positions of the images', 'nothing more')
    """
    words = {
        f"{needs.views} views of each image": needs.views > 1,
        f"{needs.passes} passes under the model's own dropout": needs.passes > 1,
        f"{'another' if needs.pair == 'other' else 'an'} image of each image's class": needs.pair is not None,
        f"groups of {needs.group} images of a class": needs.group > 1,
        "positions of the images": needs.index,
        "the previous batch": needs.previous,
        "inner stages of the network": needs.stages,
        "a second network": needs.peer,
        "how much of the training is done": needs.progress,
    }
    return ", ".join(word for word, needed in words.items() if needed) or "nothing more"
