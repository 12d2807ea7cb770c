"""Standard dropout before the head (Table 11): the label loss sees dropped features only."""

import torch.nn.functional as F

from selfdistill.method import Labelled, Method, Step


class Dropout(Method):
    r"""Dropout on the pooled features, the ordinary way.

    .. math:: L = CE(h(\mathbf{u} \odot f(x)), y), \qquad u^j \in \{0, 1/(1-p)\}, \; P(u^j = 0) = p

    One dropped head and no clean cross-entropy. Evaluation uses the clean features, as always.

    Args:
        p: probability in [0, 1) that a feature is dropped; survivors are scaled by 1 / (1 - p). At 0 it is
            cross-entropy.

    Raises:
        ValueError: ``p`` outside [0, 1).

    Example:
        >>> Dropout(p=0.3)
        Dropout(p=0.3)

    Source: Self-Knowledge Distillation via Dropout, Table 11, row "standard".
    """

    drops_features = True

    def __init__(self, p: float = 0.5):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p is the probability to drop a feature, in [0, 1), not {p}")
        self.p = p

    def labelled(self, step: Step) -> Labelled:
        """Return the logits of the dropped features."""
        clean = step.outputs[0]
        return ((clean.head(F.dropout(clean.features, self.p)), step.batch.y, 1.0),)
