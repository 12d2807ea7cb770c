"""Diagrams: what a method is seen to do, against the methods' definitions written down by hand; and the pictures."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from selfdistill import BYOT, DLB, Method
from selfdistill.cli import main
from selfdistill.data.synthetic import example_methods
from selfdistill.experiments.paper.designs import DESIGNS
from selfdistill.losses import kl
from selfdistill.method import Needs, Step, Term
from selfdistill.methods import parse_method
from selfdistill.report.diagram import diagram, write_diagrams
from selfdistill.report.diagram.lanes import TIMES
from selfdistill.report.diagram.observe import observe
from selfdistill.report.diagram.svg import wide
from selfdistill.report.diagram.taking import Node

SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Design:
    """What the definition of a method says; a node is ``"kind source"``."""

    passes: str = "x"  # with a star: without gradient
    heads: str = ""  # its own head calls, "whose features > whose head", all under a mask
    labels: dict[str, float] = field(default_factory=lambda: {"posterior x": 1.0})
    terms: dict[str, tuple[float, set[str], set[str]]] = field(default_factory=dict)  # weight, taught, held constant


X, U, V = "posterior x", "posterior sample 0", "posterior sample 1"
VIEW, PAIR, PEER, EARLY = "posterior view 2", "posterior pair", "posterior peer", "posterior early"

SDD = {"sdd": (0.1 * 9, {U, V}, set[str]())}
CSKD = {"cskd": (1 * 16, {X}, {PAIR})}
DDGSD = {"ddgsd": (1 * 9, {X, VIEW}, {X, VIEW}), "mmd": (0.005, {"features x", "features view 2"}, set[str]())}
DML = {"dml": (1 * 9, {X, PEER}, {X, PEER})}
BRANCHES = {
    "branch_ce": (0.1 * 0.9, {EARLY}, set[str]()),
    "byot": (0.1 * 0.1 * 9, {EARLY}, {X}),
    "hint": (0.1 * 1e-6, {"features early"}, {"features x"}),
}
HALVES = {X: 0.5, PEER: 0.5}

DEFINED = {
    "CrossEntropy()": Design(),
    "LabelSmoothing()": Design(),
    "SDDropout()": Design(heads="x>x x>x", terms={"sdd": (1 * 9, {U, V}, set())}),
    "SDDropout(direction='forward')": Design(heads="x>x x>x", terms={"sdd": (1 * 9, {U, V}, {U, V})}),
    "SDDropout(direction='reverse')": Design(heads="x>x x>x", terms={"sdd": (1 * 9, {U, V}, {U, V})}),
    "SDDropout(one_sided=True)": Design(heads="x>x", terms={"sdd": (1 * 9, {U, X}, set())}),
    "SDDropout(at='layer3')": Design(passes="x u v", terms={"sdd": (1 * 9, {"posterior u", "posterior v"}, set())}),
    "Dropout()": Design(heads="x>x", labels={U: 1.0}),
    "Dropout(dagger=True)": Design(heads="x>x", labels={X: 1.0, U: 1.0}),
    "CSKD()": Design(passes="x pair*", terms=CSKD),
    "DDGSD()": Design(passes="x view_2", labels={X: 1.0, VIEW: 1.0}, terms=DDGSD),
    "BYOT()": Design(terms=BRANCHES),
    "DML()": Design(passes="x peer", labels=HALVES, terms=DML),
    "CSKD() + SDDropout(weight=0.1)": Design(passes="x pair*", heads="x>x x>x", terms=CSKD | SDD),
    "DDGSD() + SDDropout(weight=0.1)": Design(
        passes="x view_2", heads="x>x view_2>x", labels={X: 1.0, VIEW: 1.0}, terms=DDGSD | SDD
    ),
    "BYOT() + SDDropout(weight=0.1)": Design(heads="x>x x>x", terms=BRANCHES | SDD),
    "DML() + SDDropout(weight=0.1)": Design(passes="x peer", heads="x>x peer>x", labels=HALVES, terms=DML | SDD),
    "DML() + SDDropout(pairs='within', weight=0.1)": Design(
        passes="x peer",
        heads="x>x x>x peer>peer peer>peer",
        labels=HALVES,
        terms=DML | {"sdd": (0.1 * 9, {U, V, "posterior sample 2", "posterior sample 3"}, set())},
    ),
    "BAKE()": Design(terms={"bake": (1 * 16, {X}, {X, "features x"})}),
    "RDrop()": Design(
        passes="x again_2",
        labels={X: 0.5, "posterior again 2": 0.5},
        terms={"rdrop": (0.3, {X, "posterior again 2"}, set())},
    ),
    "DLB()": Design(
        passes="x previous",
        labels={X: 0.5, "posterior previous": 0.5},
        terms={"dlb": (1 * 9, {"posterior previous"}, {"memory DLB"})},
    ),
    "PSKD(samples=50000)": Design(),
}
"""By hand, from the methods' definitions; weights are lambda * T**2."""

DRAWN = list(dict.fromkeys([*map(repr, example_methods().values()), *DEFINED, "BAKE() + DDGSD()"]))
CROWDED = "BAKE() + BYOT() + CSKD() + DDGSD() + SDDropout(weight=0.1)"


def named(node: Node) -> str:
    return f"{node.kind} {node.source}"


@pytest.mark.parametrize("expression", DEFINED)
def test_a_method_is_seen_to_do_what_defines_it(expression: str) -> None:
    wanted, seen = DEFINED[expression], observe(parse_method(expression))
    passes = [source.replace(" ", "_") + ("" if gradient else "*") for source, gradient in seen.passes.items()]
    assert passes == wanted.passes.split()
    heads = [f"{sample.features_of.replace(' ', '_')}>{sample.head_of}" for sample in seen.samples]
    assert heads == wanted.heads.split()
    assert all(sample.masked and sample.gradient for sample in seen.samples)
    assert {named(node): weight for node, weight in seen.labelled} == wanted.labels
    found = {
        term.name: (
            term.weight,
            {named(link.node) for link in term.links if link.taught},
            {named(link.node) for link in term.links if link.stopped},
        )
        for term in seen.terms
    }
    assert found == {name: (pytest.approx(weight), *ends) for name, (weight, *ends) in wanted.terms.items()}


def test_every_exported_method_is_defined_here() -> None:
    assert {repr(method) for method in example_methods().values()} <= set(DEFINED)


def test_what_is_kept_what_is_mixed_and_who_smooths() -> None:
    ps_kd, dlb, smoothed = (observe(parse_method(text)) for text in ("PSKD(samples=9)", "DLB()", "LabelSmoothing()"))
    assert [[named(node) for node in pair] for pair in ps_kd.kept] == [[X, "memory PSKD"]]
    assert [named(node) for node in ps_kd.targets] == ["memory PSKD"]
    assert [[named(node) for node in pair] for pair in dlb.kept] == [[X, "memory DLB"]]
    assert dlb.targets == ()
    assert (smoothed.label_loss, dlb.label_loss) == ("LabelSmoothing()", None)
    assert observe(BYOT()).early == (0, 1, 2)


class Noisy(Method):
    """A user's own: what a noisy input's posterior says, without gradient, teaches; and the features stay small."""

    def terms(self, step: Step) -> dict[str, Term]:
        assert isinstance(step.batch.x, Tensor)
        with torch.no_grad():
            noisy = step.net(step.batch.x + 0.1 * torch.randn_like(step.batch.x))
        student = step.outputs[0]
        return {
            "consistency": Term(kl(noisy.logits, student.logits, 2.0), 4.0),
            "norm": Term(student.features.pow(2).mean(), 1e-4),
        }


class Unlabelled(Method):
    """A user's own, without labels: the mean of four views teaches the first."""

    needs = Needs(views=4)

    def labelled(self, step: Step) -> tuple[()]:
        return ()

    def terms(self, step: Step) -> dict[str, Term]:
        others = torch.stack([one.logits for one in step.outputs[1:]]).mean(0)
        return {"views": Term(kl(others.detach(), step.outputs[0].logits))}


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (
            Noisy(),
            "x passes the network f and head h to z; x (changed) passes the network f and head h to z_+1, without "
            f"gradient. The labels y teach z by cross-entropy. The term consistency ({TIMES} 4) teaches z; held "
            f"constant in it: z_+1. The term norm ({TIMES} 0.0001) teaches f(x).",
        ),
        (
            Unlabelled(),
            "x (view 1) passes the network f and head h to z_1; x (view 2) passes the network f and head h to z_2; x "
            "(view 3) passes the network f and head h to z_3; x (view 4) passes the network f and head h to z_4. The "
            f"term views ({TIMES} 1) teaches z_1; held constant in it: z_2, z_3 and z_4.",
        ),
    ],
    ids=repr,
)
def test_a_method_of_ones_own(method: Method, words: str) -> None:
    picture = ET.fromstring(diagram(method))
    assert picture.findtext(f"{SVG}desc") == words
    check(picture)


def test_the_words_of_sd_dropout() -> None:
    picture = ET.fromstring(diagram(parse_method("SDDropout()")))
    assert picture.findtext(f"{SVG}title") == "SDDropout()"
    assert picture.findtext(f"{SVG}desc") == (
        "x passes the network f and head h to z; f(x) under the dropout mask u passes the head h to z^u; f(x) under "
        "the dropout mask v passes the head h to z^v. The labels y teach z by cross-entropy. The term sdd "
        f"({TIMES} 9) teaches z^u and z^v."
    )


@pytest.mark.parametrize("expression", [*DRAWN, CROWDED])
def test_a_picture_has_a_term_a_pill_and_nothing_overlaps(expression: str) -> None:
    method = parse_method(expression)
    picture = ET.fromstring(diagram(method))
    pills = [rect for rect in picture.iter(f"{SVG}rect") if rect.get("class", "").startswith("pill ")]
    assert len(pills) == len(observe(method).terms)
    check(picture)


def test_it_is_the_same_each_time_and_nothing_else_is_changed() -> None:
    dlb, byot = DLB(), BYOT()
    both = dlb + byot
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = diagram(both)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert diagram(both) == first
    assert (dlb.get_extra_state(), list(byot.branches), both.training) == (None, [], True)
    assert diagram(parse_method("DLB() + BYOT()")) == first


def test_files_of_every_method(tmp_path: Path) -> None:
    files = write_diagrams(tmp_path / "new")
    assert sorted((tmp_path / "new").iterdir()) == sorted(files)
    assert len(files) == len(example_methods()) + 1
    assert {"sd_dropout.svg", "ps_kd.svg", "byot-sd_dropout.svg"} <= {file.name for file in files}
    assert (tmp_path / "new" / "cs_kd.svg").read_text() == diagram(parse_method("CSKD()"))


def test_figure_1_is_reproduced_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(["reproduce", "figure1", "--scale", "small", "--out", str(tmp_path / "out"), *words])
        assert end.value.code == 0
        return capsys.readouterr().out

    assert "figure1: Design of the self-knowledge distillation methods: needs no run" in told("--list")
    assert not (tmp_path / "out").exists()
    assert told() == f"Page: {tmp_path / 'out' / 'figure1.html'}\n"
    page, text = ((tmp_path / "out" / f"figure1.{suffix}").read_text() for suffix in ("html", "md"))
    assert re.findall("<title>(.*?)</title>", page)[1:] == list(DESIGNS.values())
    shown = re.findall(r"^!\[(.*)\]\((.*)\)$", text, flags=re.MULTILINE)
    assert [name for name, _ in shown] == list(DESIGNS)
    assert list(DESIGNS)[:2] == ["Cross-entropy", "SD-Dropout"]
    for _, file in shown:
        svg = (tmp_path / "out" / file).read_text()
        assert svg in page


# The geometry of a picture.


@dataclass(frozen=True)
class Area:
    what: str
    left: float
    top: float
    right: float
    bottom: float

    def holds(self, other: "Area") -> bool:
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom

    def meets(self, other: "Area", margin: float = 0.0) -> bool:
        across = self.left + margin < other.right and other.left < self.right - margin
        return across and self.top + margin < other.bottom and other.top < self.bottom - margin


def check(picture: ET.Element) -> None:
    """No text leaves its box or meets another, no box meets another, no line runs through a box or a text."""
    whole = Area("the picture", 0, 0, float(picture.get("width", 0)), float(picture.get("height", 0)))
    frames, boxes, masks = [], [], []
    for rect in picture.iter(f"{SVG}rect"):
        x, y, w, h = (float(rect.get(name, 0)) for name in ("x", "y", "width", "height"))
        kind = rect.get("class", "")
        (boxes if "box" in kind.split() else frames).append(Area(kind, x, y, x + w, y + h))
    for circle in picture.findall(f"{SVG}circle"):
        x, y, r = (float(circle.get(name, 0)) for name in ("cx", "cy", "r"))
        masks.append(Area("mask", x - r, y - r, x + r, y + r))
    texts = [area_of(text) for text in picture.iter(f"{SVG}text")]
    lines = list(segments(picture))
    for text in texts:
        assert whole.holds(text), text
        for around in [*boxes, *masks, *frames]:
            assert around.holds(text) or not around.meets(text), (text, around)
    for areas in (texts, [*boxes, *masks]):
        for i, one in enumerate(areas):
            assert not any(one.meets(other) for other in areas[i + 1 :]), one
    for line in lines:
        assert whole.holds(line), line
        assert not any(around.meets(line, margin=1.0) for around in boxes), line
        bare = (text for text in texts if not any(mask.holds(text) for mask in masks))  # a mask lies on its line
        assert not any(text.meets(line, margin=1.0) for text in bare), line


def area_of(text: ET.Element) -> Area:
    """From the top of a capital to the baseline, as wide as any font may make it."""
    size, x, y = (float(text.get(name, 0)) for name in ("font-size", "x", "y"))
    width = wide(text.text or "", size)
    for part in text:
        width += wide(part.text or "", float(part.get("font-size", size))) + wide(part.tail or "", size)
    left = x - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[text.get("text-anchor", "start")]
    return Area("".join(text.itertext()), left, y - 0.75 * size, left + width, y)


def segments(picture: ET.Element) -> Iterator[Area]:
    """Each straight piece of the lines, those of the legend left out."""
    for path in picture.findall(f"{SVG}path"):
        if "wire" in path.get("class", "").split():
            points = [tuple(map(float, pair)) for pair in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.get("d", ""))]
            for (x, y), (to_x, to_y) in pairwise(points):
                yield Area("a line", min(x, to_x), min(y, to_y), max(x, to_x), max(y, to_y))
