"""Every method and the paper's sums as the cross-cutting tests run them: on which net, with what of a batch."""

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from selfdistill import Method, SelfDistiller
from selfdistill.methods import parse_method
from tests.nets import INNER, NETS

SAMPLES = 12
"""Images of the training set that the batches pretend to be of."""

ALONE = (
    "CrossEntropy()",
    "LabelSmoothing()",
    "Dropout()",
    "Dropout(dagger=True)",
    "SDDropout()",
    "SDDropout(one_sided=True)",
    "SDDropout(at={inner!r})",
    "SDDropout(at={inner!r}, passes='separate')",
    "CSKD()",
    "DDGSD()",
    "BYOT()",
    "DML(peer={peer!r})",
    "RDrop()",
    "PSKD(samples=12)",
    "BAKE(partners=1)",
    "DLB()",
)
SUMS = (
    "LabelSmoothing() + SDDropout()",
    "CSKD() + SDDropout(weight=0.1)",
    "DDGSD() + SDDropout(weight=0.1)",
    "DDGSD() + SDDropout(pairing='within')",
    "BYOT() + SDDropout(weight=0.1)",
    "DML(peer={peer!r}) + SDDropout({pairs}weight=0.1)",
    "Dropout() + SDDropout()",
    "BYOT() + LabelSmoothing() + SDDropout(weight=0.1)",
    "BYOT() + CSKD() + DML(peer={peer!r}) + SDDropout({pairs}weight=0.1)",
    "BAKE(partners=1) + PSKD(samples=12) + SDDropout()",
    "DLB() + PSKD(samples=12)",
)

# The attention net owns a parameter that no reset_parameters() draws anew: its peer is another network.
PEERS = {"attention": "resnet10_cifar"}


def every_method(net: str) -> list[Method]:
    """Return each method and sum that this net can be trained with."""
    peer = PEERS.get(net)
    pairs = "pairing='within', " if peer else ""
    texts = [text.format(inner=INNER[net], peer=peer, pairs=pairs) for text in (*ALONE, *SUMS)]
    return [parse_method(text) for text in texts if net == "conv" or "BYOT" not in text]


def model_for(net: str, method: Method) -> nn.Module:
    """Return the net; with a dropout of its own where the method needs one."""
    model = NETS[net]()
    if method.needs.passes > 1:
        model.set_submodule(INNER[net], nn.Sequential(model.get_submodule(INNER[net]), nn.Dropout(0.2)))
    return model


def wrap(net: str, method: Method, x: Any, model: nn.Module | None = None) -> SelfDistiller:
    """Return a distiller of this net (or of ``model``) and a copy of the method, half-way through a training."""
    stages = ("block", "after") if method.needs.stages else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="DML draws its peer's weights layer by layer")
        distiller = SelfDistiller(
            model_for(net, method) if model is None else model, copy.deepcopy(method), stages=stages, example_input=x
        )
    distiller.set_progress(0.4, 0.5)
    return distiller


def needed(method: Method, x: Any, y: Tensor, generator: torch.Generator | None = None) -> dict[str, Any]:
    """Return the further arguments that the method needs for a batch."""
    needs, arguments = method.needs, {}
    generator = generator or torch.Generator().manual_seed(5)
    if needs.views > 1:
        arguments["views"] = [noisy(x, generator) for _ in range(needs.views - 1)]
    if needs.pair:
        arguments["pair"] = noisy(x, generator)
    if needs.index:
        arguments["index"] = torch.arange(len(y)) % SAMPLES
    if needs.previous:
        arguments["previous"] = (noisy(x, generator), y)
    return arguments


def noisy(x: Any, generator: torch.Generator) -> Any:
    """Return another view of x: each of its floating-point tensors a little changed."""
    if isinstance(x, Tensor):
        return x + 0.3 * torch.randn(x.shape, generator=generator)
    return {name: noisy(value, generator) for name, value in x.items()}
