"""Needs, sums, `repr` and the way back from it."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from selfdistill import (
    DDGSD,
    DML,
    CrossEntropy,
    Dropout,
    LabelSmoothing,
    Method,
    Needs,
    SDDropout,
    SelfDistiller,
    Step,
    Term,
)
from selfdistill.method import CEInputs, DropoutAt, Sum
from selfdistill.methods import parse_method
from tests.nets import CLASSES, batch, mlp


class Twice(Method):
    """Replaces what the cross-entropy is computed on, as Dropout does."""

    def ce_inputs(self, step: Step) -> CEInputs:
        return super().ce_inputs(step) * 2


class Squared(Method):
    """Replaces the label loss, as LabelSmoothing does."""

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        return logits.square().mean()


class Size(Method):
    """Adds one term and reads two views."""

    needs = Needs(views=2)

    def __init__(self, weight: float = 1.0, name: str = "size"):
        super().__init__()
        self.weight, self.name = weight, name

    def terms(self, step: Step) -> dict[str, Term]:
        return {self.name: Term(step.outputs[1].features.square().mean(), self.weight)}


def loss_of(method: Method, seed: int = 3) -> Tensor:
    """Return the loss on one fixed net and batch under one random state."""
    torch.manual_seed(0)
    model, (x, y) = mlp(), batch("mlp")
    torch.manual_seed(seed)
    return SelfDistiller(model, method)(x, y).loss


# repr and parse


@pytest.mark.parametrize(
    "text",
    [
        "CrossEntropy()",
        "LabelSmoothing()",
        "LabelSmoothing(eps=0.2)",
        "Dropout(p=0.3)",
        "SDDropout()",
        "SDDropout(p=0.1, weight=0.1, temperature=4.0, direction='forward', at='layer3', warmup=0.2)",
        "LabelSmoothing() + SDDropout(weight=0.1)",
        "CrossEntropy() + Dropout() + LabelSmoothing(eps=0.2) + SDDropout(direction='reverse')",
    ],
)
def test_repr_and_parse_are_inverse(text: str) -> None:
    method = parse_method(text)
    assert repr(method) == text
    assert repr(parse_method(repr(method))) == text


def test_repr_leaves_defaults_out() -> None:
    assert repr(SDDropout(0.5, 1.0, temperature=3)) == "SDDropout()"
    assert repr(SDDropout(0.25, weight=2)) == "SDDropout(p=0.25, weight=2)"


def test_parse_reads_values() -> None:
    method = parse_method("  SDDropout(.25, weight=1e-1, at=None, direction='reverse')\n")
    assert isinstance(method, SDDropout)
    assert (method.p, method.weight, method.at, method.direction) == (0.25, 0.1, None, "reverse")


def test_parse_sorts_sums_and_takes_brackets() -> None:
    assert repr(parse_method("SDDropout() + (LabelSmoothing() + Dropout())")) == (
        "Dropout() + LabelSmoothing() + SDDropout()"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SDdropout()", "unknown method 'SDdropout'; did you mean 'SDDropout'?"),
        ("LabelSmothing()", "unknown method 'LabelSmothing'; did you mean 'LabelSmoothing'?"),
        ("Zebra()", "unknown method 'Zebra'; choose from BAKE, BYOT, CSKD, "),
        ("Method()", "unknown method 'Method'"),
        ("print()", "unknown method 'print'"),
        ("SDDropout(wieght=0.1)", "SDDropout has no argument 'wieght'; did you mean 'weight'?"),
        ("CrossEntropy(p=0.1)", "CrossEntropy has no argument 'p'"),
        ("SDDropout(**{'p': 0.1})", "SDDropout has no argument '**'"),
        ("SDDropout(self=1)", "SDDropout has no argument 'self'"),
        ("SDDropout(p=half)", "the arguments of a method are plain numbers, strings or None"),
        ("SDDropout(*[0.5])", "the arguments of a method are plain numbers, strings or None"),
        ("SDDropout(p=0.1 + x)", "the arguments of a method are plain numbers, strings or None"),
        ("SDDropout(0.5, p=0.5)", "an argument has a wrong type, or there are too many"),
        ("SDDropout(p=0.5, p=0.4)", "'SDDropout(p=0.5, p=0.4)': an argument is given twice"),
        ("CrossEntropy(1)", "an argument has a wrong type, or there are too many"),
        ("SDDropout(p='a')", "SDDropout(p='a')"),
        ("SDDropout", "'SDDropout' is not a valid method; did you mean 'SDDropout()'?"),
        ("SDDropout() + Dropout", "did you mean 'Dropout()'?"),
        ("SDDropout() - Dropout()", "is not a valid method; write for example 'SDDropout(weight=0.1)'"),
        ("0.1 * SDDropout()", "is not a valid method"),
        ("methods.SDDropout()", "is not a valid method"),
        ("SDDropout()()", "is not a valid method"),
        ("[SDDropout()]", "is not a valid method"),
        ("SDDropout(", "'SDDropout(' is not a valid method; write for example"),
        ("a = 1", "'a = 1' is not a valid method"),
        ("'SDDropout()'", "is not a valid method"),
        ("%&!", "'%&!' is not a valid method"),
        ("a\0b", "is not a valid method"),
        ("", "'' is not a valid method; write for example 'SDDropout(weight=0.1)'"),
        ("   ", "is not a valid method"),
        ("SDDropout(p=1.0)", "SDDropout: p is the probability to drop a feature, in [0, 1), not 1.0"),
        ("SDDropout(p=-0.1)", "SDDropout: p is the probability to drop a feature, in [0, 1), not -0.1"),
        ("SDDropout(weight=-1)", "SDDropout: weight must be at least 0 and finite, not -1"),
        ("SDDropout(temperature=0)", "SDDropout: temperature must be positive and finite, not 0"),
        ("SDDropout(direction='up')", "SDDropout: direction must be 'both', 'forward' or 'reverse', not 'up'"),
        ("SDDropout(warmup=1.5)", "SDDropout: warmup is a share of the training, in [0, 1], not 1.5"),
        ("Dropout(p=1)", "Dropout: p is the probability to drop a feature, in [0, 1), not 1"),
        ("LabelSmoothing(eps=1)", "LabelSmoothing: eps must be in [0, 1), not 1"),
        ("SDDropout() + SDDropout(p=0.1)", "SDDropout stands twice in one sum"),
    ],
)
def test_parse_errors(text: str, message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the message is compared below
        parse_method(text)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("wrapped", ["{}", "SDDropout(p={})", "SDDropout({})", "{}()", "SDDropout() + {}"])
def test_parse_evaluates_nothing(wrapped: str, tmp_path: Path) -> None:
    trace = tmp_path / "was-here"
    code = f"__import__('pathlib').Path({str(trace)!r}).touch()"
    with pytest.raises(ValueError, match=r"is not a valid method|plain numbers, strings or None"):
        parse_method(wrapped.format(code))
    assert not trace.exists()


@pytest.mark.parametrize(
    "text", ["(" * 5000, "-" * 100_000 + "1", "SDDropout(p=" + "[" * 5000, "+".join(["X"] * 99_999)]
)
def test_parse_survives_deep_nesting(text: str) -> None:
    with pytest.raises(ValueError, match="is not a valid method"):
        parse_method(text)


# Needs


def test_needs_are_joined() -> None:
    place = DropoutAt("layer3", 0.5)
    joined = (
        Needs(views=2, index=True) | Needs(views=3, pair="any", dropout_at=place) | Needs(previous=True, stages=True)
    )
    assert joined == Needs(views=3, pair="any", index=True, previous=True, stages=True, dropout_at=place)
    assert Needs() | Needs() == Needs()


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (None, None, None),
        (None, "any", "any"),
        ("any", "any", "any"),
        ("any", "other", "other"),
        (None, "other", "other"),
    ],
)
def test_the_stricter_pair_wins(one: str | None, other: str | None, both: str | None) -> None:
    assert (Needs(pair=one) | Needs(pair=other)).pair == both  # type: ignore[arg-type]
    assert (Needs(pair=other) | Needs(pair=one)).pair == both  # type: ignore[arg-type]


def test_needs_of_two_places_cannot_be_joined() -> None:
    with pytest.raises(ValueError, match="one sum can drop out at one place with one p, not at 'a' and 'b'"):
        Needs(dropout_at=DropoutAt("b", 0.5)) | Needs(dropout_at=DropoutAt("a", 0.5))


def test_a_sum_needs_what_its_parts_need() -> None:
    assert (Size() + SDDropout(at="1")).needs == Needs(views=2, dropout_at=DropoutAt("1", 0.5))


# Sum


def test_a_sum_is_flat_and_its_order_does_not_matter() -> None:
    parts = [Dropout(), LabelSmoothing(), SDDropout(weight=0.1)]
    sums = [a + b + c for a, b, c in itertools.permutations(parts)] + [parts[0] + (parts[1] + parts[2])]
    for total in sums:
        assert repr(total) == "Dropout() + LabelSmoothing() + SDDropout(weight=0.1)"
        assert [type(part) for part in total.parts] == [Dropout, LabelSmoothing, SDDropout]
    assert {loss_of(total).item() for total in sums} == {loss_of(sums[0]).item()}
    assert loss_of(sums[0], seed=4).item() != loss_of(sums[0]).item()


def test_cross_entropy_counts_once() -> None:
    assert loss_of(CrossEntropy() + SDDropout()).item() == loss_of(SDDropout()).item()


def test_terms_add_up() -> None:
    """Eq. 5: loss(a + b) = loss(a) + loss(b) - CE under one random state."""
    model, (x, y) = mlp(), batch("mlp")

    def loss(method: Method) -> Tensor:
        torch.manual_seed(5)
        return SelfDistiller(model, method)(x, y, views=(x + 1,)).loss

    torch.testing.assert_close(
        loss(Size(0.3) + SDDropout(weight=0.1)),
        loss(Size(0.3)) + loss(Size(0.0) + SDDropout(weight=0.1)) - loss(CrossEntropy()),
    )
    torch.testing.assert_close(
        loss(LabelSmoothing() + SDDropout()), loss(LabelSmoothing()) + loss(SDDropout()) - loss(CrossEntropy())
    )


def test_terms_are_reported_unweighted() -> None:
    x, y = batch("mlp")
    terms = SelfDistiller(mlp(), Size(0.25) + SDDropout(weight=0.1))(x, y, views=(x,)).terms
    assert set(terms) == {"ce", "sdd", "size"}
    loss, _, again = SelfDistiller(mlp(), Size(0.25) + SDDropout(weight=0.1, p=0.0))(x, y, views=(x,))
    torch.testing.assert_close(loss.detach(), again["ce"] + 0.25 * again["size"])


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([SDDropout(), SDDropout(p=0.1)], "SDDropout stands twice in one sum: its terms would share a name"),
        ([CrossEntropy(), LabelSmoothing() + CrossEntropy()], "CrossEntropy stands twice in one sum"),
        (
            [Dropout(), Twice()],
            r"Dropout\(\) and Twice\(\) cannot be added: both replace what the cross-entropy",
        ),
        (
            [DML(), DDGSD()],
            r"DDGSD\(\) and DML\(\) cannot be added: both replace what the cross-entropy",
        ),
        (
            [Squared(), LabelSmoothing()],
            r"LabelSmoothing\(\) and Squared\(\) cannot be added: both replace the label loss",
        ),
    ],
)
def test_parts_that_cannot_be_added(methods: list[Method], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sum(*methods)


def test_two_terms_of_one_name() -> None:
    class Other(Size):
        pass

    x, y = batch("mlp")
    with pytest.raises(ValueError, match="two parts give a term named 'size'; rename one"):
        SelfDistiller(mlp(), Size() + Other())(x, y, views=(x,))


def test_only_methods_are_added() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        SDDropout() + 0.1  # type: ignore[operator]


def test_a_sum_takes_the_label_loss_of_one_part_and_the_logits_of_another() -> None:
    """LabelSmoothing's loss on Dropout's logits: at p = 0 it is LabelSmoothing alone, at eps = 0 Dropout alone."""
    total = loss_of(LabelSmoothing() + Dropout()).item()
    assert loss_of(LabelSmoothing() + Dropout(p=0.0)).item() == pytest.approx(loss_of(LabelSmoothing()).item())
    assert loss_of(LabelSmoothing(eps=0.0) + Dropout()).item() == pytest.approx(loss_of(Dropout()).item())
    assert total != pytest.approx(loss_of(LabelSmoothing()).item(), rel=1e-3)
    assert total != pytest.approx(loss_of(Dropout()).item(), rel=1e-3)


def test_a_sum_drops_features_if_a_part_does() -> None:
    assert (LabelSmoothing() + SDDropout()).drops_features
    assert not (LabelSmoothing() + CrossEntropy()).drops_features


def test_a_sum_builds_its_parts() -> None:
    seen = []

    class Sized(Method):
        def build(self, probe: object, model: object) -> None:
            seen.append((probe.logits.shape, model))  # type: ignore[attr-defined]

    model = mlp()
    SelfDistiller(model, Sized() + CrossEntropy(), example_input=batch("mlp")[0])
    assert seen == [((2, CLASSES), model)]
