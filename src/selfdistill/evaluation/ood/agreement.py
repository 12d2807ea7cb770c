"""Section 4.5's claim: SD-Dropout makes the posteriors of dropped-out features agree. How far apart are they?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selfdistill.evaluation.arrays import Floats
from selfdistill.evaluation.gradient import checked, plain
from selfdistill.network import evaluation_mode
from selfdistill.tap import Head


def posterior_sd(
    features: Tensor,
    head: Head | nn.Module,
    *,
    masks: int = 20,
    p: float = 0.5,
    temperature: float = 1.0,
    seed: int = 0,
    chunk: int = 1024,
) -> Floats:
    """s(x) = 1/C sum_c sd_m(q_m(c | x)), q_m = softmax(h(u_m * f(x) / (1 - p)) / T), over masks u_1 .. u_M.

    sd is the sample's, with M - 1 in its denominator, so that its square has the same mean whatever M. Each u_m is
    Bernoulli(1 - p) a feature, drawn from the seed and shared by all images: an image's number depends on no other
    image, on no order and on no batch size, and two sets are compared under the same masks. The price: the mean over a
    set keeps a noise of a few per cent however many images it has; average over several seeds to lower it.

    Args:
        features: f(x), the head's input, (N, D) or maps (N, D, 1, 1), on any device; see
            `selfdistill.evaluation.images.read_features`.
        head: h, features to logits (B, C); run in evaluation mode, without autocast and without gradients, and left
            as it was found.
        masks: M >= 2.
        p: probability that a feature is dropped, in [0, 1).
        temperature: T > 0.
        seed: of the masks, >= 0.
        chunk: rows that pass through the head at once, >= 1.

    Returns:
        One number per image, (N,), float64: 0 where the masks agree, at most 1/2 * sqrt(M / (M - 1)).

    Raises:
        ValueError: an argument is out of range, or a logit is not finite.

    Example:
        >>> posterior_sd(torch.randn(4, 8), nn.Linear(8, 3), p=0.0)
        array([0., 0., 0., 0.])

    Source: section 4.5 of the SD-Dropout paper, which states the claim and measures nothing; M = 20 is ours.
    """
    if features.dim() < 2 or not len(features):
        raise ValueError(f"features: shape {tuple(features.shape)}, expected (N, D) with N >= 1")
    if masks < 2:
        raise ValueError(f"masks: {masks}, expected at least 2")
    if not 0 <= p < 1:
        raise ValueError(f"p: {p}, expected a probability in [0, 1)")
    if not temperature > 0:
        raise ValueError(f"temperature: {temperature}, expected a positive number")
    if chunk < 1:
        raise ValueError(f"chunk: {chunk}, expected at least 1")
    if seed < 0:
        raise ValueError(f"seed: {seed}, expected a whole number >= 0")
    f = plain(features)
    module = head.module if isinstance(head, Head) else head
    device = next(module.parameters(), f).device
    draws = torch.rand(masks, *f.shape[1:], generator=torch.Generator().manual_seed(seed))
    kept = ((draws >= p).to(f.dtype) / (1 - p)).to(device)
    rows = []
    with evaluation_mode(module), torch.no_grad(), torch.autocast(device.type, enabled=False):
        for part in torch.split(f, chunk):
            logits = torch.stack([checked(head(part.to(device) * mask)) for mask in kept]).cpu().double()
            q = (logits / temperature).softmax(dim=2)
            rows.append(q.std(dim=0, correction=1).mean(dim=1))
    return torch.cat(rows).numpy()
