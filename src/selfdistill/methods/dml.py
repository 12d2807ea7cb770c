"""DML (Zhang et al., 2018): two networks learn together, each from the labels and from the other."""

import copy
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from selfdistill.losses import kl
from selfdistill.method import CEInputs, Method, Needs, Outputs, Range, Step, Term
from selfdistill.methods.ranges import check_temperature, check_weight


class DML(Method):
    r"""Deep mutual learning of the model (1, the student) and a peer (2).

    .. math::
        L = \tfrac12 \left[ CE(z_1, y) + CE(z_2, y) \right]
            + \lambda \, T^2 \left[ D_{KL}(\mathrm{sg}\, p_2 \| p_1) + D_{KL}(\mathrm{sg}\, p_1 \| p_2) \right]

    where :math:`p = \mathrm{softmax}(z / T)` and sg stops the gradient. Both see the same batch and learn at once, by
    one optimiser. The student alone is returned, scored and kept. The cross-entropies are *averaged* and the
    divergences summed, as run for the paper's tables; DML's own authors sum both, at T = 1.

    The term is ``"dml"``: the bracket, unweighted and without :math:`T^2`.

    Args:
        weight: :math:`\lambda \geq 0`; 1 in the paper's tables. In the authors' logs 0.1 loses more than a point on
            CIFAR-100.
        temperature: :math:`T > 0`; 3 in the paper's tables.
        peer: the second network. None takes a copy of the model with other initial weights, drawn from torch's global
            random state. A model of :func:`selfdistill.models.build` (our networks, ``"torchvision:NAME"``,
            ``"timm:NAME"``) is built once more for them, at random even where the model is pretrained. Of any other
            model each layer is initialised anew by its own ``reset_parameters``, and a warning says so: a constructor
            that initialises in its own way, as torchvision's ResNets do, would have drawn others. A name is built as a
            recipe's ``model`` (``"resnet10_cifar"``, ``"timm:resnet18"``); a module is taken as it is.

    Raises:
        ValueError: an argument outside its range; a model with a layer that cannot be initialised anew; a peer with
            another number of classes.

    Example:
        >>> import torch
        >>> from selfdistill import DML, SelfDistiller
        >>> from selfdistill.models import build
        >>> x, y = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
        >>> distiller = SelfDistiller(build("resnet10_cifar", 3, width=4), DML(), example_input=x)
        >>> list(distiller(x, y).terms)
        ['ce', 'dml']
        >>> distiller.peer(x).shape
        torch.Size([4, 3])

    Source: Deep Mutual Learning, Algorithm 1 (simultaneous, as in the authors' code); Table 1's row "DML".
    """

    searched = (
        Range("weight", 0.1, 3, log=True),
        Range("temperature", 1, 6),
    )
    needs = Needs(peer=True)

    def __init__(self, weight: float = 1.0, temperature: float = 3.0, peer: str | nn.Module | None = None):
        super().__init__()
        check_weight("DML", weight=weight)
        check_temperature("DML", temperature)
        self.weight, self.temperature = weight, temperature
        self._asked = type(peer) if isinstance(peer, nn.Module) else peer
        self.network = peer if isinstance(peer, nn.Module) else None

    @property
    def peer(self) -> str | type[nn.Module] | None:
        """What was asked for: a name, None, or the class of the given module (for ``repr``)."""
        return self._asked

    @property
    def peer_network(self) -> nn.Module | None:
        """The second network, once it is built."""
        return self.network

    def build(self, probe: Outputs, model: nn.Module) -> None:
        """Make the peer, on the model's device."""
        if isinstance(self._asked, str):
            from selfdistill.models.build import build

            self.network = build(self._asked, probe.logits.shape[1])
        elif self.network is None:
            self.network = _twin_of(model)
        self.network.to(probe.logits.device)

    def ce_inputs(self, step: Step) -> CEInputs:
        """Return both networks' logits, each with weight 1/2."""
        return ((step.outputs[0].logits, step.labels, 0.5), (step.peers[0].logits, step.labels, 0.5))

    def terms(self, step: Step) -> dict[str, Term]:
        """Return ``{"dml": Term(KLs, lambda * T**2)}``."""
        student, peer = step.outputs[0].logits, step.peers[0].logits
        towards_peer = kl(peer.detach(), student, self.temperature)
        towards_student = kl(student.detach(), peer, self.temperature)
        return {"dml": Term(towards_peer + towards_student, self.weight * self.temperature**2)}


def _twin_of(model: nn.Module) -> nn.Module:
    """Return a copy of the model with other initial weights: its constructor's, or layer by layer."""
    twin = copy.deepcopy(model)
    arguments = getattr(model, "build_arguments", None)
    if arguments is not None:
        from selfdistill.models.build import build

        fresh = build(**arguments).state_dict()
        # A layer that was put in since then makes it another network.
        if _shapes(fresh) == _shapes(twin.state_dict()):
            twin.load_state_dict(fresh)
            return twin
    reinitialised(twin)
    if not hasattr(model, "reset_parameters"):
        warnings.warn(
            f"DML draws its peer's weights layer by layer, not as the constructor of this {type(model).__name__} does, "
            "which it does not know; pass peer=, a second network or the name of one, if they differ",
            stacklevel=5,
        )
    return twin


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


def reinitialised(network: nn.Module) -> nn.Module:
    """Draw the weights of a network anew, in place, by each module's own ``reset_parameters``; return it.

    Raises:
        ValueError: a module owns parameters, but has no ``reset_parameters``.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 2)
        >>> before = layer.weight.clone()
        >>> bool((reinitialised(layer).weight == before).any())
        False
    """
    _reinitialise(network, "the model itself")
    return network


def _reinitialise(module: nn.Module, name: str) -> None:
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    if next(module.parameters(recurse=False), None) is not None:
        raise ValueError(
            f"DML cannot initialise a copy of the model anew: {name} (a {type(module).__name__}) has parameters, but "
            "no reset_parameters(); pass peer=, a second network or the name of one"
        )
    for child_name, child in module.named_children():
        _reinitialise(child, child_name if name == "the model itself" else f"{name}.{child_name}")
