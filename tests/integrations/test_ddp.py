"""Two processes of torchrun take the step that one takes on all the images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.integrations.ddp_script import start

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("integration", ["huggingface", "lightning"])
def test_two_processes(integration: str, tmp_path: Path) -> None:
    script = Path(__file__).with_name("ddp_script.py")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    answer = subprocess.run(
        [*launcher, script, integration, tmp_path],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    result = torch.load(tmp_path / "result.pt")

    distiller, x, y = start()
    loss, _, terms = distiller(x, y)
    loss.backward()
    torch.optim.SGD(distiller.parameters(), lr=0.1).step()
    assert result["logged"] == pytest.approx({"loss": loss.item(), **{n: t.item() for n, t in terms.items()}}, rel=1e-5)
    for name, value in distiller.state_dict().items():
        if name != "method._extra_state":
            torch.testing.assert_close(result["state"][name], value, msg=name)
    if integration == "huggingface":
        checkpoint = tmp_path / "checkpoint-1"
        assert set(torch.load(checkpoint / "method.pt")) == {"_extra_state", "linear.weight", "linear.bias"}
        assert set(torch.load(checkpoint / "method_1.pt")) == {"_extra_state"}
