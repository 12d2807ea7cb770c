"""Diagrams: what a method is seen to do, against the methods' definitions written down by hand; and the pictures."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from selfdistill import BYOT, DLB, Method
from selfdistill.cli import main
from selfdistill.losses import kl
from selfdistill.method import Needs, Step, Term
from selfdistill.methods import parse_method
from selfdistill.paper.figures import DESIGNS
from selfdistill.report.diagram import TIMES, draw_diagram, text_width, write_diagram
from selfdistill.report.observe import LABELS, Node, Observation, observe
from selfdistill.report.tables import MINUS
from selfdistill.timing.synthetic import example_methods

SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Design:
    """What the definition of a method says; a node is ``"kind source"``."""

    passes: str = "x"  # with a star: without gradient
    heads: str = ""  # its own head calls, "whose features > whose head", all under a mask
    labels: dict[str, float] = field(default_factory=lambda: {"posterior x": 1.0})
    terms: dict[str, tuple[float, set[str], set[str]]] = field(default_factory=dict)  # weight, taught, held constant


X, U, V = "posterior x", "posterior head call 1", "posterior head call 2"
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
    "DML() + SDDropout(pairing='within', weight=0.1)": Design(
        passes="x peer",
        heads="x>x x>x peer>peer peer>peer",
        labels=HALVES,
        terms=DML | {"sdd": (0.1 * 9, {U, V, "posterior head call 3", "posterior head call 4"}, set())},
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

EXAMPLES = [repr(method) for method in example_methods().values()]  # follows methods.__all__
DRAWN = list(dict.fromkeys([*EXAMPLES, *DEFINED, "BAKE() + DDGSD()"]))
CROWDED = "BAKE() + BYOT() + CSKD() + DDGSD() + SDDropout(weight=0.1)"


@cache
def seen_of(expression: str) -> Observation:
    return observe(parse_method(expression))


@cache
def picture_of(expression: str) -> str:
    return draw_diagram(parse_method(expression))


@pytest.mark.parametrize("expression", DEFINED)
def test_observation_matches_the_definition_of_the_method(expression: str) -> None:
    wanted, seen = DEFINED[expression], seen_of(expression)
    passes = [one for one in seen.step.forwards if one.source == one.features_of != "early"]
    assert [one.source.replace(" ", "_") + "*" * (not one.gradient) for one in passes] == wanted.passes.split()
    calls = [one for one in seen.step.forwards if one.source.startswith("head call")]
    assert [f"{one.features_of.replace(' ', '_')}>{one.head_of}" for one in calls] == wanted.heads.split()
    assert all(one.masked and one.gradient for one in calls)
    heads = {f"posterior {one.source}": f"posterior head call {i}" for i, one in enumerate(calls, 1)}

    def named(nodes: Iterable[Node]) -> set[str]:
        return {heads.get(" ".join(node), " ".join(node)) for node in nodes if node != LABELS}

    taught: dict[str, float] = {}
    for loss in (term for term in seen.terms if term.kind == "label loss"):
        taught |= dict.fromkeys(named(read.node for read in loss.reads if read.gradient), loss.weight)
        assert LABELS in [read.node for read in loss.reads]
    assert taught == wanted.labels
    found = {
        term.name: (
            pytest.approx(term.weight),
            named(read.node for read in term.reads if read.gradient),
            named(read.node for read in term.reads if read.constant),
        )
        for term in seen.terms
        if term.kind == "term"
    }
    assert found == wanted.terms


def test_memories_and_the_label_loss_are_observed() -> None:
    ps_kd, dlb, smoothed = (seen_of(text) for text in ("PSKD(samples=9)", "DLB()", "LabelSmoothing()"))
    assert [saved(seen) for seen in (ps_kd, dlb, smoothed)] == [[("x", "PSKD")], [("x", "DLB")], []]
    assert [read_of(seen, "label loss", kind) for seen, kind in ((ps_kd, "PSKD"), (dlb, "DLB"))] == [True, False]
    assert [seen.terms[0].name for seen in (smoothed, dlb)] == ["LabelSmoothing", "CE"]
    assert seen_of("BYOT()").step.early_stages == {1, 2, 3}


def saved(seen: Observation) -> list[tuple[str, ...]]:
    """The sources of each node that is saved and of its memory."""
    return [tuple(read.node.source for read in term.reads) for term in seen.terms if term.kind == "save"]


def read_of(seen: Observation, kind: str, memory: str) -> bool:
    """Whether terms of this kind read the memory, as a constant."""
    reads = [read for term in seen.terms if term.kind == kind for read in term.reads]
    return any(read.node == Node("memory", memory) and read.constant and not read.gradient for read in reads)


def test_a_term_that_reads_labels_has_them_as_a_constant() -> None:
    (branch_ce,) = (term for term in seen_of("BYOT()").terms if term.name == "branch_ce")
    assert [(read.gradient, read.constant) for read in branch_ce.reads if read.node == LABELS] == [(False, True)]


class Noisy(Method):
    """A user's own: the posterior of a noisy input teaches, without gradient; and the features stay small."""

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

    def ce_inputs(self, step: Step) -> tuple[()]:
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
def test_a_method_of_a_user_gets_its_diagram(method: Method, words: str) -> None:
    picture = ET.fromstring(draw_diagram(method))
    assert picture.findtext(f"{SVG}desc") == words
    check(picture)


def test_the_description_says_what_is_drawn() -> None:
    picture = ET.fromstring(picture_of("SDDropout()"))
    assert picture.findtext(f"{SVG}title") == "SDDropout()"
    assert picture.findtext(f"{SVG}desc") == (
        "x passes the network f and head h to z; f(x) under the dropout mask u passes the head h to z^u; f(x) under "
        "the dropout mask v passes the head h to z^v. The labels y teach z by cross-entropy. The term sdd "
        f"({TIMES} 9) teaches z^u and z^v."
    )


def test_the_description_names_constants_memories_and_the_label_loss() -> None:
    def words(expression: str) -> str:
        said = str(ET.fromstring(picture_of(expression)).findtext(f"{SVG}desc"))
        return said.replace(TIMES, "*").replace(MINUS, "-")

    assert "The labels y teach z (* 0.5) and z_t-1 (* 0.5) by cross-entropy. The term dlb (* 9) teaches" in words(
        "DLB()"
    )
    assert words("DLB()").endswith("z_t-1; held constant in it: the memory. For later steps z is saved in the memory.")
    assert "The labels y teach z by cross-entropy; held constant in it: the memory." in words("PSKD(samples=9)")
    assert words("LabelSmoothing()").endswith("The labels y teach z by the loss of LabelSmoothing.")
    assert "The term hint (* 10⁻⁷) teaches F_1…3; held constant in it: f(x)." in words("BYOT()")


@pytest.mark.parametrize("expression", [*DRAWN, CROWDED])
def test_every_term_has_its_row_and_nothing_overlaps(expression: str) -> None:
    seen, picture = seen_of(expression), ET.fromstring(picture_of(expression))
    kinds = [element.get("class") for element in picture.iter()]
    terms = [term for term in seen.terms if term.kind != "save"]
    assert kinds.count("box pill term") == len(terms)
    assert kinds.count("box pill memory") == len(seen.terms) - len(terms)
    reads = [read for term in terms for read in term.reads]
    assert kinds.count("gradient term") - 1 == sum(read.gradient for read in reads)  # one is in the legend
    assert kinds.count("box term") - 1 == sum(read.constant for read in reads)
    check(picture)


@pytest.mark.parametrize("expression", EXAMPLES)
def test_the_diagram_of_a_method_fits_a_phone_and_is_small(expression: str) -> None:
    svg = picture_of(expression)
    assert float(ET.fromstring(svg).get("width", 0)) <= 404
    assert len(svg.encode()) < 12_000


def test_drawing_is_deterministic_and_changes_nothing() -> None:
    dlb, byot = DLB(), BYOT()
    both = dlb + byot
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = draw_diagram(both)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert draw_diagram(both) == first
    assert (dlb.get_extra_state(), list(byot.branches), both.training) == (None, [], True)
    assert draw_diagram(parse_method("DLB() + BYOT()")) == first


def test_a_file_is_named_by_the_modules_of_the_parts(tmp_path: Path) -> None:
    file = write_diagram(parse_method("SDDropout() + CSKD()"), tmp_path, "figure-")
    assert file == tmp_path / "figure-cs_kd-sd_dropout.svg"
    assert file.read_text() == draw_diagram(parse_method("SDDropout() + CSKD()"))


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
    for circle in picture.findall(f"{SVG}circle[@class='box mask']"):
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
    width = text_width(text.text or "", size)
    for part in text:
        width += text_width(part.text or "", size * float(part.get("font-size", "").rstrip("%")) / 100) + text_width(
            part.tail or "", size
        )
    left = x if "start" in text.get("class", "").split() else x - width / 2
    return Area("".join(text.itertext()), left, y - 0.75 * size, left + width, y)


def segments(picture: ET.Element) -> Iterator[Area]:
    """Each straight piece of the lines."""
    for path in picture.findall(f"{SVG}path"):
        if "wire" in path.get("class", "").split():
            start, steps = re.fullmatch(r"M([\d. ]+)(.*)", path.get("d", "")).groups()
            points = [tuple(map(float, start.split()))]
            for step, to in re.findall(r"([HVv])([\d.]+)", steps):
                x, y = points[-1]
                points.append({"H": (float(to), y), "V": (x, float(to)), "v": (x, y + float(to))}[step])
            for (x, y), (to_x, to_y) in pairwise(points):
                yield Area("a line", min(x, to_x), min(y, to_y), max(x, to_x), max(y, to_y))
