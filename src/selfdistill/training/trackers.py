"""Trackers of experiments: the log's columns as curves in TensorBoard, Weights & Biases or MLflow.

Lightning's loggers are not used: Fabric has one of the three, and its trainer's start a new MLflow run on resume.
"""

import hashlib
import time
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from selfdistill.errors import ArgumentError
from selfdistill.files import refuse_link


class Tracker(Protocol):
    """Where curves go."""

    def write(self, values: Mapping[str, float], epoch: int) -> None:
        """Write the values of an epoch."""

    def close(self) -> None:
        """Write what is pending."""


def check_tracker(log: str | None) -> None:
    """Refuse a tracker whose package is not installed."""
    if log is not None and find_spec(log) is None:
        extra = log if log == "tensorboard" else "trackers"
        raise ArgumentError("log", f'is {log}, which is not installed: pip install "selfdistill[{extra}]"')


def make_tracker(log: str, run: Path, config: Mapping[str, Any], epoch: int) -> Tracker:
    """Return a tracker; a resumed run goes on with its former curves.

    Args:
        log: ``"tensorboard"``, in ``run/tensorboard``; ``"wandb"`` or ``"mlflow"``, in the project or experiment
            ``selfdistill``, and where these packages' own environment variables say (``WANDB_MODE``,
            ``MLFLOW_TRACKING_URI``).
        run: the run's folder; its name is the run's.
        epoch: epochs done; TensorBoard hides what an earlier process wrote of later ones.

    Raises:
        ArgumentError: the package cannot start, as where nobody has logged in; its reason in one line.
    """
    kinds: dict[str, type[_TensorBoard | _Wandb | _Mlflow]] = {
        "tensorboard": _TensorBoard,
        "wandb": _Wandb,
        "mlflow": _Mlflow,
    }
    try:
        return kinds[log](run.resolve(), config, epoch)
    except Exception as error:  # these packages have errors of their own
        raise ArgumentError("log", f"is {log}, which cannot start: {' '.join(str(error).split())}") from error


class _TensorBoard:
    def __init__(self, run: Path, config: Mapping[str, Any], epoch: int):
        from torch.utils.tensorboard.writer import SummaryWriter

        self.writer = SummaryWriter(str(refuse_link(run / "tensorboard")), purge_step=epoch + 1)

    def write(self, values: Mapping[str, float], epoch: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, global_step=epoch)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    def __init__(self, run: Path, config: Mapping[str, Any], epoch: int):
        import wandb

        refuse_link(run / "wandb")
        self.run = wandb.init(
            project="selfdistill",
            group=run.parent.name,
            name=run.name,
            id=_identity(run),
            resume="allow",
            dir=run,
            config=dict(config),
            settings=wandb.Settings(console="off", silent=True),
        )

    def write(self, values: Mapping[str, float], epoch: int) -> None:
        self.run.log(dict(values), step=epoch)

    def close(self) -> None:
        self.run.finish()


class _Mlflow:
    def __init__(self, run: Path, config: Mapping[str, Any], epoch: int):
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self.client, self.metric = MlflowClient(), Metric
        known = self.client.get_experiment_by_name("selfdistill")
        experiment = self.client.create_experiment("selfdistill") if known is None else known.experiment_id
        tags = {"folder": _identity(run)}
        found = self.client.search_runs([experiment], f"tags.folder = '{tags['folder']}'")
        made = found[0] if found else self.client.create_run(experiment, run_name=run.name, tags=tags)
        self.run = made.info.run_id
        self.client.log_batch(self.run, params=[Param(name, str(value)) for name, value in config.items()])

    def write(self, values: Mapping[str, float], epoch: int) -> None:
        now = int(1000 * time.time())
        metrics = [self.metric(name, value, now, epoch) for name, value in values.items()]
        try:
            self.client.log_batch(self.run, metrics)
        except Exception as error:  # a server that is gone must not end the training
            warnings.warn(f"MLflow did not take epoch {epoch}: {error}", stacklevel=2)

    def close(self) -> None:
        self.client.set_terminated(self.run)


def _identity(run: Path) -> str:
    """Return the same name for the same folder."""
    return hashlib.sha256(str(run).encode(errors="surrogateescape")).hexdigest()[:16]
