"""``selfdistill train``."""

from selfdistill.cli.options import Accelerator, File, MachineNumber, takes_recipe
from selfdistill.cli.show import show_comparison
from selfdistill.config.train_config import TrainConfig


@takes_recipe(TrainConfig)
def train(
    recipe: TrainConfig,
    *,
    out: File | None = None,
    devices: MachineNumber = 1,
    nodes: MachineNumber = 1,
    accelerator: Accelerator = "auto",
) -> None:
    """Train one network with one method.

    To resume an interrupted run, run the same command again: the weights become the same.

    For example:
        selfdistill train --data photos --weights default --epochs 30
        selfdistill train --recipe cifar100 --seed 1 --devices 2

    Args:
        out: folder of the run (default: runs/DATA-METHOD-seedN)
        devices: GPUs (or CPU processes) on each machine
        nodes: number of machines
        accelerator: cuda, mps (of a Mac), cpu, or auto for a GPU where there is one
    """
    from selfdistill.runs.single import run_single

    record, out = run_single(
        recipe,
        out,
        devices=devices,
        nodes=nodes,
        accelerator=accelerator,
    )
    if record is not None:  # the first of several processes
        show_comparison([record], out, f"{record.method} on {record.data.name}", folders=[out])
