"""TensorBoard: the log's columns as scalars."""

from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard.writer import SummaryWriter

from selfdistill.train.task import Row


class Board:
    """Writes each row of the log as scalars, by epoch.

    Args:
        folder: where the event files go.
        epoch: epochs done; what an earlier process wrote of later ones is hidden.
    """

    def __init__(self, folder: Path, epoch: int):
        self.writer = SummaryWriter(str(folder), purge_step=epoch + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.writer.close()

    def write(self, row: Row) -> None:
        """Write one row."""
        for name, value in row.items():
            if name != "epoch" and value is not None:
                self.writer.add_scalar(name, value, global_step=row["epoch"])
        self.writer.flush()
