"""Table 3 on several devices: its recipe, by the command, on images that lie as ImageNet's do.

The network is small and the epoch one; batch, learning rate, image size and augmentation are the recipe's own.
"""

import math
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from selfdistill.cli import main
from selfdistill.config import TrainConfig
from selfdistill.paper import PaperConfig
from selfdistill.paper.scales import DatasetSize, Training, check_run
from selfdistill.records import RunRecord
from selfdistill.runs.grid import PlannedRun, is_trained
from tests.published import write_imagenet

TRAINING = Training("SDDropout(weight=0.1)", "imagenet", "resnet152")
PROGRAMS = Path(sys.executable).parent
LAUNCHERS = {
    "selfdistill": [],
    "torchrun": [str(PROGRAMS / "torchrun"), "--nproc-per-node", "2", "--no-python"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "flat"), [("selfdistill", False), ("torchrun", True)])
def test_table_3_by_two_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], launcher: str, flat: bool
) -> None:
    write_imagenet(tmp_path / "data", flat=flat, knows="meta.bin" if flat else "", train=12)
    config = PaperConfig("full", tmp_path / "out", tmp_path / "data", seeds=(41,))
    where = ["--scale", "full", "--out", str(config.out), "--data-root", str(config.data_root), "--seeds", "41"]
    with pytest.raises(SystemExit):
        main(["reproduce", "table3", "--print-commands", *where])
    planned = config.plan_run(TRAINING, 41)
    (command,) = [line for line in capsys.readouterr().out.splitlines() if planned.name in line]
    program, *words = shlex.split(command)
    file = Path(words[words.index("--recipe") + 1])
    file.write_text(
        replace(TrainConfig.from_yaml(file), model="resnet10_cifar", width=4, epochs=1, workers=0).to_yaml()
    )

    answer = subprocess.run(
        [*LAUNCHERS[launcher], str(PROGRAMS / program), *words, "--devices", "2", "--accelerator", "cpu"],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "Starting with 2 processes" in answer.stderr
    assert "imagenet: 36 training images, 6 test images (test set), 3 classes, 224 px" in answer.stderr
    assert "batches of 256, lr 0.1" in answer.stderr
    assert answer.stdout.count("Report: ") == 1  # of the first process alone

    record = RunRecord.load(config.runs / planned.name / "result.json")
    assert record.data.name == "imagenet"
    assert (record.data.classes, record.data.train_n, record.data.test_n) == (3, 36, 6)
    assert (record.evaluation.n, record.epochs, record.policy) == (6, 1, "last epoch")
    assert math.isfinite(record.log[0].loss or math.nan)
    expected = {"batch_size": 256, "lr": 0.1, "image_size": 224, "augment": "resized_crop_flip", "seed": 41}
    assert {name: record.recipe_values[name] for name in expected} == expected
    assert record.recipe.method == TRAINING.method
    # The one step's 8 passes are shared: each process makes 4 of them.
    weights = load_file(config.runs / planned.name / "model.safetensors")
    assert {int(value) for name, value in weights.items() if name.endswith("num_batches_tracked")} == {4}
    # The run is the table's: it says nothing of devices, and `reproduce` will not train it again.
    assert is_trained(PlannedRun(planned.name, TrainConfig.from_yaml(file)), config.runs)
    check_run(config.runs / planned.name, TrainConfig.from_yaml(file), DatasetSize(train=36, test=6, classes=3))
