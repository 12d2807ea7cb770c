"""The schedules as published, step by step."""

import pytest

from selfdistill.detect import DetectRecipe
from selfdistill.detect.schedule import drops_of, learning_rate


@pytest.mark.parametrize(
    ("schedule", "epochs", "rates"),
    [("1x", 12, [0.02] * 8 + [0.002] * 3 + [0.0002]), ("0.5x", 7, [0.02] * 5 + [0.002] + [0.0002])],
)
def test_the_rate_of_every_epoch(schedule: str, epochs: int, rates: list[float]) -> None:
    recipe = DetectRecipe(model="resnet152", schedule=schedule).resolve("resnet152", trained=True)  # type: ignore[arg-type]
    assert (recipe.epochs, recipe.batch_size, recipe.lr) == (epochs, 16, 0.02)
    for epoch, rate in enumerate(rates):
        for step in (0, 999):
            got = learning_rate(
                1000 * epoch + step, steps_per_epoch=1000, lr=0.02, drops=recipe.drops or (), warmup_steps=0
            )
            assert got == pytest.approx(rate)


def test_the_warm_up_is_500_steps_from_a_thousandth() -> None:
    rates = [learning_rate(k, steps_per_epoch=7393, lr=0.02, drops=(8, 11)) for k in range(502)]
    for k in range(500):
        assert rates[k] == pytest.approx(0.02 * (0.001 + 0.999 * k / 500))
    assert rates[500:] == [0.02, 0.02]


def test_a_drop_holds_in_a_warm_up_that_lasts_so_long() -> None:
    rate = learning_rate(10, steps_per_epoch=5, lr=1.0, drops=(1, 2), gamma=0.5, warmup_steps=20)
    assert rate == pytest.approx(0.25 * (0.001 + 0.999 / 2))


def test_other_lengths_drop_in_proportion() -> None:
    for epochs in range(1, 40):
        drops = drops_of(epochs)
        assert set(drops) == {round(epochs * part) for part in (8 / 12, 11 / 12)} - {0, epochs}
        assert list(drops) == sorted(drops)


@pytest.mark.parametrize("batch", [1, 2, 8, 16, 64])
def test_the_rate_is_in_proportion_to_the_batch(batch: int) -> None:
    recipe = DetectRecipe(model="resnet50", batch_size=batch).resolve("resnet50", trained=False)
    assert recipe.lr == pytest.approx(0.02 * batch / 16)
