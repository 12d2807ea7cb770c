"""The divergences as pure functions: Eq. 1 (posterior), 3, 6 and 7 (symmetric KL), and those of the other methods.

Every divergence sums over the classes, averages over the batch, leaves the factor T**2 to the caller and computes in
float32 at least, also under autocast.

Source: Self-Knowledge Distillation via Dropout, Eq. 1, 3, 6, 7; reduction and temperature as in the authors' code.
"""

from selfdistill.losses.divergence import kl, mmd, soft_kl
from selfdistill.losses.precision import at_least_float32
from selfdistill.losses.symmetric import Direction, symmetric_kl, symmetric_kl_of_samples

__all__ = ["Direction", "at_least_float32", "kl", "mmd", "soft_kl", "symmetric_kl", "symmetric_kl_of_samples"]
