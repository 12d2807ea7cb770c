"""What a report says of each measure beyond accuracy: a section a measure, only where it was measured."""

from __future__ import annotations

from collections.abc import Sequence

from selfdistill.records import Evaluation
from selfdistill.report.measured import Measured
from selfdistill.report.measures.corruption import corruption_section
from selfdistill.report.measures.masks import masks_section
from selfdistill.report.measures.ood import ood_section
from selfdistill.report.measures.robustness import robustness_section
from selfdistill.report.measures.selective import selective_section
from selfdistill.report.pages import Section

FIGURES = (
    *("confusion", "class-reliability", "risk-coverage", "attacks", "corruptions", "corruption-each"),
    *("ood-roc-*", "ood-scores-*"),
)
"""Patterns of the files that the sections may write."""


def sections(methods: Sequence[Measured[Evaluation]]) -> tuple[Section, ...]:
    """The sections of the measures that some run has, in the order of a page."""
    makers = (selective_section, robustness_section, corruption_section, ood_section, masks_section)
    return tuple(section for make in makers if (section := make(methods)) is not None)
