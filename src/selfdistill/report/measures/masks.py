"""Section 4.5's claim: a network that agrees with itself under dropout masks on its own images, and elsewhere not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from selfdistill.records import Evaluation
from selfdistill.report.measured import Measured, by_ood_set, every, names, table
from selfdistill.report.pages import Section, Sheet
from selfdistill.report.tables import Column

_SD = Column("sd", "sd", digits=4)
_RATIO = Column("ratio", "Ratio", digits=2)


def masks_section(methods: Sequence[Measured[Evaluation]]) -> Section | None:
    """The spread of the posterior over dropout masks, on the test images and on the others; None where not measured."""
    results = [m for m in methods if m.statistic(_spread(None, "in_distribution")) is not None]
    if not results:
        return None
    columns = [("Test images", _SD, _spread(None, "in_distribution"))]
    for name in by_ood_set(results):
        columns += [(name, _SD, _spread(name, "ood")), (f"{name} / test", _RATIO, _ratio(name))]
    masks, seeds = every(results, _spread(None, "masks")), every(results, _spread(None, "seeds"))
    p, temperature = every(results, _spread(None, "p")), every(results, _spread(None, "temperature"))
    return Section(
        title="Agreement under dropout masks",
        about="How much do predictions vary where features are dropped?",
        explain="Section 4.5 of the paper says that SD-Dropout makes the posteriors of dropped-out features agree, and "
        "so lowers the uncertainty on in-distribution images. Here is how far they are apart: the sd of a class's "
        f"probability over {masks} masks, mean over classes and images. Other images are told apart by it where the "
        "ratio of their sd to the test images' is far above 1.",
        findings=_findings(results),
        parts=(Sheet(table(results, columns)),),
        notes=(
            f"sd: over {masks} masks that drop features before the head with p = {p}, at temperature {temperature}; "
            f"mean over {seeds} draws of the masks, which are the same for all images",
        ),
    )


def _findings(results: Sequence[Measured[Evaluation]]) -> tuple[str, ...]:
    """Whether each method agrees with itself more than the first one on the test images, as the claim has it."""
    less: list[str] = []
    more: list[str] = []
    unclear: list[str] = []
    for method in results[1:]:
        _, interval = method.against(results[0], _spread(None, "in_distribution"))
        if interval is not None:
            low, high = interval
            (less if high < 0 else more if low > 0 else unclear).append(method.name)
    said = [
        f"{names(found)} {words}"
        for found, words in (
            (less, f"varied less under the masks than {results[0].name} on the test images"),
            (more, "varied more" if less else f"varied more under the masks than {results[0].name} on the test images"),
            (unclear, "made no clear difference"),
        )
        if found
    ]
    return (f"{'; '.join(said)}.",) if less or more else ()


def _spread(
    name: str | None, key: Literal["in_distribution", "ood", "masks", "seeds", "p", "temperature"]
) -> Callable[[Evaluation], float | None]:
    """A number of the disagreement on a set; of the first where none is named, since all share the test images."""

    def pick(evaluation: Evaluation) -> float | None:
        spread = (one.disagreement for one in evaluation.ood if name in (None, one.name))
        found: float | None = getattr(next(filter(None, spread), None), key, None)
        return found

    return pick


def _ratio(name: str) -> Callable[[Evaluation], float | None]:
    def pick(evaluation: Evaluation) -> float | None:
        test, other = _spread(name, "in_distribution")(evaluation), _spread(name, "ood")(evaluation)
        return None if other is None or not test else other / test

    return pick
