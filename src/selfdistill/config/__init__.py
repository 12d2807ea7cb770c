"""What a user sets: the config of a training, its YAML, and what follows from it. No torch here."""

from selfdistill.config.train_config import ResolvedTrainConfig, TrainConfig
from selfdistill.config.yaml_config import YamlConfig

__all__ = ["ResolvedTrainConfig", "TrainConfig", "YamlConfig"]
