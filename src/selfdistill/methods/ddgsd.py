"""DDGSD (Xu and Liu, 2019): make the predictions for two augmented views of an image agree."""

from selfdistill.losses import kl, mmd
from selfdistill.method import CEInputs, Method, Needs, Range, Step, Term
from selfdistill.methods.ranges import check_temperature, check_weight


class DDGSD(Method):
    r"""Data-distortion guided self-distillation.

    .. math::
        L = CE(z_a, y) + CE(z_b, y)
            + \lambda \, T^2 \left[ D_{KL}(\mathrm{sg}\, p_b \| p_a) + D_{KL}(\mathrm{sg}\, p_a \| p_b) \right]
            + \mu \, \left\| \frac{1}{B} \sum f_a - \frac{1}{B} \sum f_b \right\|^2

    where a and b are independent draws of the ordinary augmentation, :math:`p = \mathrm{softmax}(z / T)`, f the pooled
    features and sg stops the gradient. The two cross-entropies are *summed*; both views pass at once, as 2B images.

    The terms are ``"ddgsd"`` (the bracket, without :math:`T^2`) and ``"mmd"``, both unweighted.

    Args:
        weight: :math:`\lambda \geq 0`, of the bracket; 1 in the paper's tables.
        temperature: :math:`T > 0`; 3 in the paper's tables.
        mmd_weight: :math:`\mu \geq 0`; 0.005 in the paper's tables (0.0005 in other implementations).

    Raises:
        ValueError: an argument outside its range.

    Example:
        >>> import torch
        >>> from selfdistill import DDGSD, SelfDistiller
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        >>> distiller = SelfDistiller(model, DDGSD())
        >>> a, b, y = torch.randn(4, 8), torch.randn(4, 8), torch.tensor([0, 1, 2, 0])
        >>> list(distiller(a, y, views=[b]).terms)
        ['ce', 'ddgsd', 'mmd']

    Source: Data-Distortion Guided Self-Distillation for Deep Neural Networks; Table 1's row "DDGSD".
    """

    searched = (
        Range("weight", 0.1, 3, log=True),
        Range("temperature", 1, 6),
    )
    needs = Needs(views=2, one_pass=True)

    def __init__(self, weight: float = 1.0, temperature: float = 3.0, mmd_weight: float = 0.005):
        super().__init__()
        check_weight("DDGSD", weight=weight, mmd_weight=mmd_weight)
        check_temperature("DDGSD", temperature)
        self.weight, self.temperature, self.mmd_weight = weight, temperature, mmd_weight

    def ce_inputs(self, step: Step) -> CEInputs:
        """Return both views, each with weight 1."""
        a, b = step.outputs[:2]
        return ((a.logits, step.labels, 1.0), (b.logits, step.labels, 1.0))

    def terms(self, step: Step) -> dict[str, Term]:
        """Return ``{"ddgsd": Term(KLs, lambda * T**2), "mmd": Term(MMD, mu)}``."""
        a, b = step.outputs[:2]
        towards_b = kl(b.logits.detach(), a.logits, self.temperature)
        towards_a = kl(a.logits.detach(), b.logits, self.temperature)
        return {
            "ddgsd": Term(towards_b + towards_a, self.weight * self.temperature**2),
            "mmd": Term(mmd(a.features, b.features), self.mmd_weight),
        }
