"""The fields of a recipe that the training engine reads, their checks, and the learning rate. No torch here."""

from typing import ClassVar, Literal

from selfdistill.config.schedule import learning_rate
from selfdistill.config.yaml_config import YamlConfig


class TrainingConfig(YamlConfig):
    """What every recipe says about its training, whatever the task.

    It has no fields of its own: each recipe declares these, in its own order and with its own defaults.

    Attributes:
        WARMUP_START: share of the learning rate that the first step of a warm-up has.
    """

    WARMUP_START: ClassVar[float] = 0.0

    seed: int
    epochs: int
    batch_size: int | None
    lr: float | None
    momentum: float
    nesterov: bool
    weight_decay: float
    schedule: Literal["step", "cosine"]
    milestones: tuple[float, ...]
    gamma: float
    warmup_epochs: float
    clip: float | None
    precision: Literal["32-true", "bf16-mixed"]
    threads: int | None
    workers: int | None
    keep_epochs: tuple[int, ...]
    eval_every: int

    @property
    def fabric_precision(self) -> Literal["32-true", "bf16-mixed"]:
        """The precision in which Fabric runs the whole network."""
        return self.precision

    def rate(self, epoch: float) -> float:
        """Return the learning rate of the optimiser step that follows ``epoch`` epochs, fractions included."""
        assert self.lr is not None
        return learning_rate(
            epoch,
            epochs=self.epochs,
            lr=self.lr,
            schedule=self.schedule,
            milestones=self.milestones,
            gamma=self.gamma,
            warmup_epochs=self.warmup_epochs,
            warmup_start=self.WARMUP_START,
        )

    def check_training(self) -> None:
        """Check the range of each of these fields; for ``__post_init__``.

        Raises:
            ValueError: a value is out of range; the message names the argument.
        """
        for name in ("epochs", "batch_size", "threads", "eval_every"):
            self.require(getattr(self, name) is None or getattr(self, name) >= 1, name, "at least 1")
        for name in ("threads", "workers"):
            self.require((getattr(self, name) or 0) <= 1024, name, "at most 1024")
        for name in ("momentum", "gamma"):
            self.require(0 <= getattr(self, name) <= 1, name, "in [0, 1]")
        for name in ("weight_decay", "warmup_epochs", "workers"):
            self.require(getattr(self, name) is None or getattr(self, name) >= 0, name, "at least 0")
        for name in ("lr", "clip"):
            self.require(getattr(self, name) is None or getattr(self, name) > 0, name, "above 0")
        self.require(0 <= self.seed < 2**63, "seed", "from 0 to 2**63 - 1")
        self.require(not self.nesterov or self.momentum > 0, "nesterov", "off where `momentum` is 0")
        ordered = list(self.milestones) == sorted(self.milestones)
        inside = all(0 < milestone < 1 for milestone in self.milestones)
        self.require(ordered and inside, "milestones", "rising fractions of the epochs in (0, 1)")
        self.require(self.warmup_epochs < self.epochs, "warmup_epochs", f"below `epochs` ({self.epochs})")
        kept = all(1 <= epoch <= self.epochs for epoch in self.keep_epochs)
        self.require(kept, "keep_epochs", f"between 1 and `epochs` ({self.epochs})")
