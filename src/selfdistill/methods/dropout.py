"""Standard dropout before the head (Table 11): the label loss sees dropped features."""

import torch.nn.functional as F

from selfdistill.method import CEInputs, Method, Range, Step
from selfdistill.methods.ranges import check_drop_probability


class Dropout(Method):
    r"""Dropout on the pooled features, the ordinary way.

    .. math:: L = CE(h(\mathbf{u} \odot f(x)), y), \qquad u^j \in \{0, 1/(1-p)\}, \; P(u^j = 0) = p

    One dropped head and no clean cross-entropy. The dagger form adds the clean one:

    .. math:: L = CE(h(f(x)), y) + CE(h(\mathbf{u} \odot f(x)), y)

    Evaluation uses the clean features, as always.

    Args:
        p: probability in [0, 1) that a feature is dropped; survivors are scaled by 1 / (1 - p). At 0 it is
            cross-entropy.
        dagger: the second form, which doubles the label loss. The paper does not define its row
            "standard (dagger)"; this is the likeliest reading, inferred from the authors' code.

    Raises:
        ValueError: ``p`` outside [0, 1).

    Example:
        >>> Dropout(p=0.3)
        Dropout(p=0.3)

    Source: Self-Knowledge Distillation via Dropout, Table 11, rows "standard" and "standard (dagger)".
    """

    searched = (Range("p", 0.1, 0.7),)
    drops_features = True

    def __init__(self, p: float = 0.5, dagger: bool = False):
        super().__init__()
        check_drop_probability("Dropout", p)
        self.p, self.dagger = p, dagger

    def ce_inputs(self, step: Step) -> CEInputs:
        """Return the logits of the dropped features, behind the clean ones in the dagger form."""
        clean = step.outputs[0]
        dropped = (clean.head(F.dropout(clean.features, self.p)), step.labels, 1.0)
        return ((clean.logits, step.labels, 1.0), dropped) if self.dagger else (dropped,)
