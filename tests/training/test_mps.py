"""What a GPU of a Mac changes, as far as it can be tested without one: the choice, float64, its generator."""

import pytest
import torch

from selfdistill.errors import ArgumentError
from selfdistill.network import default_device
from selfdistill.training import random_state
from selfdistill.training.meters import Loss, Meters
from selfdistill.training.session import check_devices

MPS = torch.device("mps")


@pytest.mark.parametrize(
    ("cuda", "mps", "kind"), [(1, True, "cuda"), (0, True, "mps"), (0, False, "cpu")], ids=["cuda", "mps", "cpu"]
)
def test_a_gpu_is_the_default(monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, kind: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert default_device().type == kind
    assert check_devices(1, 1, "auto") == kind
    assert check_devices(1, 1, "cpu") == "cpu"
    with pytest.raises(ArgumentError) as refused:
        check_devices(2 if mps else 1, 1, "mps")
    assert refused.value.argument == ("devices" if mps else "accelerator")


def test_sums_are_float64_on_the_cpu() -> None:
    meters = Meters(MPS, ["right"])
    meters.add(Loss(torch.tensor(0.1), {"ce": torch.tensor(0.1)}, {"right": torch.tensor(2)}, images=3), 0)
    assert meters.sums.dtype == torch.float64
    assert meters.sums.device.type == meters.first_nonfinite_step.device.type == "cpu"
    assert meters.sums.tolist() == pytest.approx([0.3, 0.3, 2])


def test_the_generators_state_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [torch.tensor([1, 2], dtype=torch.uint8)]
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: states[-1])
    monkeypatch.setattr(torch.mps, "set_rng_state", states.append)
    taken = random_state.snapshot(MPS)
    states.append(torch.tensor([9, 9], dtype=torch.uint8))
    random_state.restore(taken, MPS)
    assert states[-1].tolist() == [1, 2]
    random_state.restore(random_state.snapshot(torch.device("cpu")), MPS)  # a run that began on the CPU
    assert len(states) == 3
