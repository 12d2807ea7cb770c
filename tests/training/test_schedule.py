import pytest
import torch

from selfdistill.config.schedule import learning_rate


def of_torch(make: object, epochs: int, lr: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer)  # type: ignore[operator]
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_step_against_torch() -> None:
    wanted = of_torch(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [100, 150]), 200, 0.1)
    assert [learning_rate(e, epochs=200, lr=0.1) for e in range(200)] == pytest.approx(wanted, rel=1e-12)


def test_cosine_against_torch() -> None:
    wanted = of_torch(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 30), 30, 0.1)
    ours = [learning_rate(e, epochs=30, lr=0.1, schedule="cosine") for e in range(30)]
    assert ours == pytest.approx(wanted, rel=1e-9)


def test_one_cycle_against_torch() -> None:
    steps, rise, epochs = 70, 21, 10
    wanted = of_torch(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, 0.1, total_steps=steps + 1, pct_start=(rise + 1) / (steps + 1)
        ),
        steps,
        0.1,
    )
    ours = [
        learning_rate(k * epochs / steps, epochs=epochs, lr=0.1, schedule="one_cycle", warmup_epochs=3)
        for k in range(steps)
    ]
    assert ours == pytest.approx(wanted, rel=1e-9)


def test_drops_on_epoch_boundaries_only() -> None:
    # 0.75 of 30 epochs is 22.5: the rate must not drop in the middle of epoch 22.
    rates = {learning_rate(22 + i / 10, epochs=30, lr=1.0, milestones=[0.75]) for i in range(10)}
    assert len(rates) == 1
    assert learning_rate(23, epochs=30, lr=1.0, milestones=[0.75]) == pytest.approx(0.1)


def test_warm_up_is_linear_then_the_schedule() -> None:
    rates = [learning_rate(e, epochs=10, lr=1.0, warmup_epochs=2, milestones=[]) for e in (0, 0.5, 1, 1.5, 2, 9)]
    assert rates == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])
    assert learning_rate(2, epochs=10, lr=1.0, schedule="cosine", warmup_epochs=2) == 1.0


def test_a_warm_up_may_start_above_zero_and_take_part_of_an_epoch() -> None:
    coco = {"epochs": 12, "lr": 0.02, "milestones": (8 / 12, 11 / 12), "warmup_start": 0.001}
    rates = [learning_rate(k / 7393, warmup_epochs=500 / 7393, **coco) for k in range(502)]  # type: ignore[arg-type]
    assert rates[:500] == pytest.approx([0.02 * (0.001 + 0.999 * k / 500) for k in range(500)])
    assert rates[500:] == [0.02, 0.02]
