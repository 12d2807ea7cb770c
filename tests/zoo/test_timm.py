"""timm: the smallest member of 20 families drawn by a fixed seed, and (slow) of every family.

The refusals are listed, with the reason: their logits are no single module's output, so no head can be named.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import timm
import torch

from selfdistill.models import build


class Member(NamedTuple):
    name: str
    millions: float
    size: int


REFUSED = {
    "crossvit": "mean of two heads, one a branch",
    "efficientformer": "mean of the class head and the distillation head",
    "efficientformer_v2": "mean of the class head and the distillation head",
    "efficientvim": "weighted sum of a head a stage",
    "levit": "mean of the class head and the distillation head",
    "swiftformer": "mean of the class head and the distillation head",
    "volo": "class head plus the maximum over tokens of an auxiliary head",
}


def families() -> dict[str, Member]:
    lines = (Path(__file__).parent / "timm_families.txt").read_text().splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    return {family: Member(name, float(millions), int(size)) for family, name, millions, size in rows}


FAMILIES = families()
SMALL = sorted(family for family, member in FAMILIES.items() if member.millions <= 20)
DRAWN = random.Random(0).sample(SMALL, 20)
REST = sorted(set(FAMILIES) - set(DRAWN))


@pytest.mark.parametrize("family", [*DRAWN, *(pytest.param(family, marks=pytest.mark.slow) for family in REST)])
def test_head_is_found_or_refused_as_listed(family: str, check_model: Callable[..., str]) -> None:
    member = FAMILIES[family]
    if not timm.is_model(member.name):
        pytest.skip(f"this timm {timm.__version__} has no {member.name}")
    model, x = build(f"timm:{member.name}", 10), torch.randn(2, 3, member.size, member.size)
    if family not in REFUSED:
        check_model(model, x, 10)
        return
    with pytest.raises(ValueError, match=r"no module's output is the logits .* pass head=, the dotted name") as refusal:
        check_model(model, x, 10)
    print(f"refused: {family} ({member.name}), {REFUSED[family]}: {refusal.value}")


def test_refusals_are_at_most_a_tenth() -> None:
    refused = sorted(set(FAMILIES) & set(REFUSED))
    print(f"{len(refused)} of {len(FAMILIES)} timm families are refused: {', '.join(refused)}")
    assert len(refused) <= len(FAMILIES) / 10


@pytest.mark.slow  # says when a new timm brings families that no one looked at
def test_every_family_of_timm_is_listed() -> None:
    assert sorted(timm.list_modules()) == sorted(FAMILIES)
