"""The losses as pure functions: cross-entropy, Eq. 1 (posterior), 3, 6 and 7 (symmetric KL), those of other methods.

Every divergence sums over the classes, averages over the batch, leaves the factor T**2 to the caller and computes in
float32 at least, also under autocast. A class that a head masks with a logit of -inf has probability 0 and adds 0, the
limit of p log p: every loss and gradient is that of the other classes.

Source: Self-Knowledge Distillation via Dropout, Eq. 1, 3, 6, 7; reduction and temperature as in the authors' code.
"""

from selfdistill.losses.cross_entropy import balanced_weights, check_labels, check_logits, cross_entropy
from selfdistill.losses.divergence import kl, mmd, soft_kl
from selfdistill.losses.precision import at_least_float32
from selfdistill.losses.symmetric import Direction, symmetric_kl, symmetric_kl_of_samples

__all__ = [
    "Direction",
    "at_least_float32",
    "balanced_weights",
    "check_labels",
    "check_logits",
    "cross_entropy",
    "kl",
    "mmd",
    "soft_kl",
    "symmetric_kl",
    "symmetric_kl_of_samples",
]
