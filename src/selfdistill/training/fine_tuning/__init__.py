"""Fine-tuning: pretrained layers with a rate of their own, and a head that starts as a linear probe."""

from selfdistill.training.fine_tuning.features import Features, feature_key, frozen_features, trains_on_features
from selfdistill.training.fine_tuning.groups import freeze, make_optimizer, parameter_groups, set_training_mode
from selfdistill.training.fine_tuning.linear_probe import MAX_IMAGES, LinearProbe, fit_linear_probe

__all__ = [
    "MAX_IMAGES",
    "Features",
    "LinearProbe",
    "feature_key",
    "fit_linear_probe",
    "freeze",
    "frozen_features",
    "make_optimizer",
    "parameter_groups",
    "set_training_mode",
    "trains_on_features",
]
