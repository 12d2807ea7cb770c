"""The fields of a recipe that the training engine reads, their checks, and the learning rate. No torch here."""

from typing import ClassVar, Literal

from selfdistill.config.duration import parse_save_every
from selfdistill.config.schedule import Schedule, learning_rate
from selfdistill.config.yaml_config import YamlConfig
from selfdistill.errors import ArgumentError

Log = Literal["tensorboard", "wandb", "mlflow"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


class TrainingConfig(YamlConfig):
    """What every recipe says about its training, whatever the task.

    It has no fields of its own: each recipe declares these, in its own order and with its own defaults.

    Attributes:
        WARMUP_START: share of the learning rate that the first step of a warm-up has.
    """

    WARMUP_START: ClassVar[float] = 0.0

    seed: int
    epochs: int | None
    batch_size: int | None
    lr: float | None
    momentum: float
    nesterov: bool
    weight_decay: float | None
    schedule: Schedule | None
    milestones: tuple[float, ...]
    gamma: float
    warmup_epochs: float | None
    clip: float | None
    precision: Precision
    threads: int | None
    workers: int | None
    keep_epochs: tuple[int, ...]
    eval_every: int
    log: Log | None
    save_every: str

    @property
    def fabric_precision(self) -> Precision:
        """The precision in which Fabric runs the whole network."""
        return self.precision

    def unused_fields(self) -> dict[str, str]:
        """Return the fields that another field makes meaningless, each with the reason."""
        why = f"`schedule={self.schedule}` has no steps"
        return {"milestones": why, "gamma": why} if self.schedule in ("cosine", "one_cycle") else {}

    def check_machine(self, kind: str, processes: int) -> None:
        """Refuse what so many processes on devices of a kind, ``"cuda"``, ``"mps"`` or ``"cpu"``, cannot do."""
        if self.precision == "16-mixed" and kind != "cuda":
            raise ArgumentError("precision", f"is 16-mixed, which needs a CUDA GPU, not {kind}: use bf16-mixed")

    def rate(self, epoch: float) -> float:
        """Return the learning rate of the optimiser step that follows ``epoch`` epochs, fractions included."""
        assert self.lr is not None
        assert self.epochs is not None
        assert self.schedule is not None
        assert self.warmup_epochs is not None
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
        self.check_ranges(
            epochs=(1, 10**6),
            batch_size=(1, 10**6),
            eval_every=(1, 10**6),
            threads=(1, 1024),  # far more end the process
            workers=(0, 1024),
            momentum=(0, 1),
            gamma=(0, 1),
        )
        parse_save_every(self.save_every)
        for name in ("weight_decay", "warmup_epochs"):
            self.require((getattr(self, name) or 0) >= 0, name, "at least 0")
        for name in ("lr", "clip"):
            self.require(getattr(self, name) is None or getattr(self, name) > 0, name, "above 0")
        self.require(0 <= self.seed < 2**63, "seed", "from 0 to 2**63 - 1")
        self.require(not self.nesterov or self.momentum > 0, "nesterov", "off where `momentum` is 0")
        ordered = list(self.milestones) == sorted(self.milestones)
        inside = all(0 < milestone < 1 for milestone in self.milestones)
        self.require(ordered and inside, "milestones", "rising fractions of the epochs in (0, 1)")
        if self.epochs is not None:
            warmup = self.warmup_epochs or 0
            self.require(warmup < self.epochs, "warmup_epochs", f"below `epochs` ({self.epochs})")
            kept = all(1 <= epoch <= self.epochs for epoch in self.keep_epochs)
            self.require(kept, "keep_epochs", f"between 1 and `epochs` ({self.epochs})")
