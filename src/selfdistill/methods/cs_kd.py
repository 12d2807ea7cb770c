"""CS-KD (Yun et al., 2020): an image's posterior is pulled towards that of another image of its class."""

from typing import Literal

from selfdistill.losses import kl
from selfdistill.method import Method, Needs, Range, Step, Term
from selfdistill.methods.ranges import check_temperature, check_weight


class CSKD(Method):
    r"""Class-wise self-knowledge distillation.

    .. math::
        L = CE(z(x), y) + \lambda \, T^2 \, D_{KL}\left( \mathrm{sg}\, p(x') \,\|\, p(x) \right), \qquad
        p = \mathrm{softmax}(z / T)

    where :math:`x'` is another image of x's class and sg stops the gradient: the network of this very step is the
    teacher. :math:`x'` passes alone, without gradient but in training mode, so that BatchNorm uses and counts its
    statistics too (as published). Cross-entropy sees x only.

    The term is ``"cskd"``: the divergence, unweighted and without :math:`T^2`.

    Args:
        weight: :math:`\lambda \geq 0`. 1 in the paper's tables, everywhere (CS-KD's own authors use 3 on CUB).
        temperature: :math:`T > 0`; 4 in the paper's tables.
        pair: ``"any"`` draws :math:`x'` uniformly from the class, the image itself included (then two augmentations
            of one image), as run for the paper's tables; ``"other"`` leaves the image itself out.

    Raises:
        ValueError: an argument outside its range.

    Example:
        >>> import torch
        >>> from selfdistill import CSKD, SelfDistiller
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        >>> distiller = SelfDistiller(model, CSKD())
        >>> x, same_class, y = torch.randn(4, 8), torch.randn(4, 8), torch.tensor([0, 1, 2, 0])
        >>> list(distiller(x, y, pair=same_class).terms)
        ['ce', 'cskd']

    Source: Regularizing Class-wise Predictions via Self-knowledge Distillation, Eq. 2 and 3; Table 1's row "CS-KD".
    """

    searched = (
        Range("weight", 0.1, 3, log=True),
        Range("temperature", 1, 6),
    )

    def __init__(self, weight: float = 1.0, temperature: float = 4.0, pair: Literal["any", "other"] = "any"):
        super().__init__()
        check_weight("CSKD", weight=weight)
        check_temperature("CSKD", temperature)
        if pair not in ("any", "other"):
            raise ValueError(f"CSKD: pair must be 'any' or 'other', not {pair!r}")
        self.weight, self.temperature = weight, temperature
        self.pair: Literal["any", "other"] = pair
        self.needs = Needs(pair=pair)

    def terms(self, step: Step) -> dict[str, Term]:
        """Return ``{"cskd": Term(KL(sg p(x') || p(x)), lambda * T**2)}``."""
        assert step.pair is not None
        divergence = kl(step.pair.logits.detach(), step.outputs[0].logits, self.temperature)
        return {"cskd": Term(divergence, self.weight * self.temperature**2)}
