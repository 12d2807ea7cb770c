from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from selfdistill.data import ImageData, Split
from selfdistill.evaluation.adversarial import EPSILONS, fgsm, gradient_sign, paper_step, pgd
from selfdistill.evaluation.gradient import clean_logits
from selfdistill.evaluation.images import Images
from selfdistill.evaluation.robustness import measure_robustness, robustness_passes
from tests import nets

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
NORM = {"mean": MEAN, "std": STD}
EPS = (0.002, 0.01, 0.03)


def images_of(pixels: Tensor, labels: Tensor, batch_size: int = 16) -> Images:
    split = Split(labels=labels, images=pixels)
    data = ImageData(
        name="noise",
        train=split,
        test=split,
        classes=tuple("abcde"),
        mean=MEAN,
        std=STD,
        image_size=8,
        augment="none",
        test_split_description="test folder",
    )
    return Images(split, data, device="cpu", batch_size=batch_size)


@pytest.fixture
def model() -> nn.Module:
    """Curved enough that its predictions on random images differ, and that PGD goes where FGSM does not."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, nets.CLASSES))
    net[1].weight.data *= 8
    return net


@pytest.fixture
def images(model: nn.Module) -> Images:
    """40 of them; about a quarter of the labels are not what the model predicts."""
    pixels = torch.randint(256, (40, 3, 8, 8), dtype=torch.uint8)
    unlabelled = images_of(pixels, torch.zeros(40, dtype=torch.long))
    predicted = torch.cat([clean_logits(model, x).argmax(1) for x, _ in unlabelled.batches()])
    assert len(predicted.unique()) > 2
    return images_of(pixels, (predicted + (torch.arange(40) % 4 == 3)) % nets.CLASSES)


def share(marks: list[bool]) -> float:
    return sum(marks) / len(marks)


def one_by_one(images: Images) -> list[tuple[Tensor, Tensor]]:
    return [(x[i : i + 1], y[i : i + 1]) for x, y in images.batches() for i in range(len(y))]


def right(model: nn.Module, x: Tensor, y: Tensor) -> bool:
    with torch.no_grad():
        return int(model.eval()(x).argmax()) == int(y)


def test_against_each_image_attacked_on_its_own(model: nn.Module, images: Images) -> None:
    found = measure_robustness(model, images, max_images=16, steps=4, eps=EPS)
    alone = one_by_one(images)
    assert found.n == 40
    assert found.clean == share([right(model, x, y) for x, y in alone]) == 0.75
    assert found.eps == EPS
    for eps, accuracy in zip(EPS, found.fgsm, strict=True):
        assert accuracy == share([right(model, fgsm(model, x, y, eps, **NORM), y) for x, y in alone])
    paper = [right(model, fgsm(model, x, None, 0.2, **NORM, protocol="paper"), y) for x, y in alone]
    assert (found.paper_eps, found.paper) == (0.2, share(paper))
    assert found.vanished == 0.0

    some = [alone[i * 40 // 16] for i in range(16)]
    clean = [right(model, x, y) for x, y in some]
    assert (found.pgd_n, found.pgd_steps, found.pgd_clean) == (16, 4, share(clean))
    for k, eps in enumerate(EPS):
        held = [right(model, fgsm(model, x, y, eps, **NORM), y) for x, y in some]
        assert found.pgd_fgsm[k] == share(held)
        # Every image is attacked at every eps; nothing is skipped, and the answers are joined by "and".
        held = [
            ok and all(right(model, pgd(model, x, y, e, **NORM, steps=4), y) for e in EPS[: k + 1])
            for ok, (x, y) in zip(clean, some, strict=True)
        ]
        assert found.pgd[k] == share(held)
    # The case tells the answers apart: every curve falls, and no two are equal, nor are the two labels of an attack.
    assert found.clean > found.fgsm[0] > found.fgsm[1] > found.fgsm[2]
    assert found.pgd_clean > found.pgd[0] > found.pgd[1] > found.pgd[2]
    assert found.pgd[2] < found.pgd_fgsm[2] != found.fgsm[2]
    true = [right(model, paper_step(x, gradient_sign(model, x, y), 0.2), y) for x, y in alone]
    assert found.paper != share(true)


class Trap(nn.Module):
    """Wrong only where the mean pixel is within .002 of .51; the slope of its logits leads there from everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        other = 0.002 - ((x * std + mean).mean((1, 2, 3)) - 0.51).abs()
        return 100 * torch.stack([torch.zeros_like(other), other], dim=1)


def test_an_image_broken_in_a_small_ball_is_broken_in_a_larger() -> None:
    pixels = (127 + torch.randint(2, (12, 3, 8, 8))).to(torch.uint8)
    images = images_of(pixels, torch.zeros(12, dtype=torch.long))
    model = Trap()
    x, y = next(images.batches())
    overshot = clean_logits(model, pgd(model, x, y, 0.2, **NORM)).argmax(1) == y
    assert float(overshot.float().mean()) > 0.5  # PGD alone steps back and forth over the trap
    found = measure_robustness(model, images, eps=(0.001, 0.012, 0.2))
    assert found.pgd == (1.0, 0.0, 0.0)
    assert found.pgd_fgsm[2] == 1.0


@pytest.mark.parametrize("max_images", [40, 16])
def test_pgd_is_never_above_clean_and_never_rises(model: nn.Module, images: Images, max_images: int) -> None:
    found = measure_robustness(model, images, max_images=max_images, steps=2)
    assert found.eps == EPSILONS
    curve = (found.pgd_clean, *found.pgd)
    assert list(curve) == sorted(curve, reverse=True)
    if max_images == 40:
        assert (found.pgd_clean, found.pgd_fgsm) == (found.clean, found.fgsm)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batch_size_changes_nothing(model: nn.Module, images: Images, batch_size: int) -> None:
    measure = lambda given: measure_robustness(model, given, max_images=16, steps=3, eps=EPS)  # noqa: E731
    other = images_of(images.split.images, images.split.labels, batch_size)  # type: ignore[arg-type]
    assert measure(other) == measure(images)


def test_the_order_of_images_changes_nothing(model: nn.Module, images: Images) -> None:
    order = torch.randperm(40)
    shuffled = images_of(images.split.images[order], images.split.labels[order])  # type: ignore[index]
    expected = measure_robustness(model, images, steps=3, eps=EPS)
    assert measure_robustness(model, shuffled, steps=3, eps=EPS) == expected


@pytest.mark.parametrize("net", ["conv", "attention"])
def test_the_caller_s_modes_and_random_state_change_nothing_and_stay(net: str) -> None:
    model = nn.Sequential(nets.NETS[net](), nn.Dropout(0.5))
    images = images_of(torch.randint(256, (12, 3, 8, 8), dtype=torch.uint8), torch.arange(12) % 5, batch_size=5)
    expected = measure_robustness(model.eval(), images, steps=2, eps=EPS)
    model.train()
    state, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        again = measure_robustness(model, images, steps=2, eps=EPS)
    assert again == expected  # a second run is equal to the last bit
    assert all(module.training for module in model.modules())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(random, torch.get_rng_state())


# As few passes as serve


def passed(model: nn.Module, run: Callable[[], object]) -> list[int]:
    """How many images went through the model, pass by pass."""
    sizes: list[int] = []
    handle = model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    run()
    handle.remove()
    return sizes


def test_one_pass_serves_clean_and_both_gradients_and_only_survivors_are_attacked(
    model: nn.Module, images: Images
) -> None:
    found = measure_robustness(model, images, max_images=16, steps=4, eps=EPS)
    sizes = passed(model, lambda: measure_robustness(model, images, max_images=16, steps=4, eps=EPS))
    survivors = [round(16 * accuracy) for accuracy in (found.pgd_clean, *found.pgd[:-1])]
    assert sizes[:15] == [16] * 5 + [16] * 5 + [8] * 5  # clean with its gradients, FGSM at 3 eps, "paper"
    assert sizes[15:] == [n for n in survivors if n for _ in range(5)]  # 4 steps, and what has become of the image
    assert survivors[-1] < survivors[0] < 16


@pytest.mark.parametrize(("max_images", "n"), [(16, 40), (40, 40), (1000, 40), (1, 40)])
def test_tick_reaches_the_announced_total(model: nn.Module, images: Images, max_images: int, n: int) -> None:
    told: list[int] = []
    measure_robustness(model, images, max_images=max_images, steps=2, eps=EPS, tick=told.append)
    assert sum(told) == robustness_passes(n, max_images, 2, EPS)
    told.clear()
    wrong = images_of(images.split.images, (images.split.labels + 2) % 5)  # type: ignore[arg-type]
    assert measure_robustness(model, wrong, max_images=max_images, steps=2, eps=EPS, tick=told.append).pgd_clean == 0
    assert sum(told) == robustness_passes(n, max_images, 2, EPS)  # nothing was left to attack
    assert min(told) > 0


def test_passes_by_hand() -> None:
    assert robustness_passes(10_000, 1000) == 10_000 * (1 + 5 + 1) + 1000 * 5 * 21
    assert robustness_passes(30, 1000, steps=3, eps=(0.1,)) == 30 * 3 + 30 * 4


# Gradients that are not there


def test_vanished_counts_images_whose_softmax_is_saturated() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5, bias=False))
    model[1].weight.data.zero_()
    model[1].weight.data[0, 64:], model[1].weight.data[1, 64:] = 1.0, -1.0  # one channel is never looked at
    shades = torch.tensor([250] * 3 + [130] * 2)  # class 0 leads by some 600, and by 58: exp(-58) is a float32
    images = images_of(shades.to(torch.uint8)[:, None, None, None].expand(5, 3, 8, 8), torch.zeros(5).long())
    found = measure_robustness(model, images, steps=2, eps=(0.05, 0.5))
    assert found.vanished == 3 / 5
    assert (found.clean, found.fgsm) == (1.0, (0.6, 0.6))  # those three were not attacked at all
    assert measure_robustness(model, images_of(images.split.images, torch.ones(5).long())).vanished == 0.0  # type: ignore[arg-type]


def test_the_same_decisions_said_louder_look_robust(model: nn.Module, images: Images) -> None:
    honest = measure_robustness(model, images, steps=4, eps=EPS)
    model[4].weight.data *= 1e4
    model[4].bias.data *= 1e4
    loud = measure_robustness(model, images, steps=4, eps=EPS)
    assert loud.clean == honest.clean
    assert (honest.vanished, loud.vanished > 0.5) == (0.0, True)
    assert loud.fgsm[2] > honest.fgsm[2] + 0.3
    assert loud.pgd[2] > honest.pgd[2]


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_images": 0}, "^max_images: 0, expected at least 1$"),
        ({"steps": 0}, "^steps: 0, expected at least 1$"),
        ({"eps": ()}, r"^eps: \[\], expected rising shares of the pixel range in \(0, 1\], as 1/255, 2/255$"),
        ({"eps": (0.0, 0.1)}, r"^eps: \[0.0, 0.1\], expected rising"),
        ({"eps": (0.2, 0.1)}, "^eps: .*expected rising"),
        ({"eps": (0.1, 0.1)}, "^eps: .*expected rising"),
        ({"eps": (0.5, 8.0)}, "^eps: .*expected rising"),
        ({"eps": (0.5, float("nan"))}, "^eps: .*expected rising"),
        ({"images": images_of(torch.zeros(0, 3, 8, 8).byte(), torch.zeros(0).long())}, "^images: there is none to"),
        (
            {"images": images_of(torch.zeros(2, 3, 8, 8).byte(), torch.tensor([0, 5]))},
            r"^y: from 0 to 5, expected class indices in 0\.\.4$",
        ),
        ({"model": nets.mlp().bfloat16()}, "^model: its parameters are torch.bfloat16"),
        (
            {"model": nn.Sequential(nets.mlp(), nn.Threshold(1e9, float("nan")))},
            "^logits: 16 of 16 rows are not finite",
        ),
    ],
)
def test_bad_input_is_one_clear_line(arguments: dict[str, object], message: str, images: Images) -> None:
    told: list[int] = []
    given = {"model": nets.mlp(), "images": images, "steps": 2, "tick": told.append} | arguments
    with pytest.raises(ValueError, match=message) as caught:
        measure_robustness(**given)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert told == []  # before anything was spent
