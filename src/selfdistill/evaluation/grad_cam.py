"""Where in an image a convolutional network sees the class that it names: Grad-CAM."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfdistill.evaluation.gradient import checked, plain, scoring
from selfdistill.network import call, eager, submodule
from selfdistill.stages import find_stages
from selfdistill.tap import StageHook


def grad_cam(model: nn.Module, x: Tensor, classes: Tensor, *, layer: str | None = None) -> Tensor:
    """L^c = ReLU(sum_k a_k^c A^k), a_k^c = 1/(H W) sum_ij dz_c / dA^k_ij, with A the deepest map (equations 1 and 2).

    Args:
        model: a convolutional network; run in evaluation mode and float32, and left as it was found.
        x: the images, normalised, (B, ..., S, S).
        classes: c, one for each image, (B,).
        layer: dotted name of the module whose output A (B, K, H, W) is; None: the last of
            `selfdistill.stages.find_stages`.

    Returns:
        L^c by its largest value, resized to the images: (B, S, S), in [0, 1]; zeros where nothing speaks for c.

    Raises:
        ValueError: the module is not known, or its output is no map; the parameters are of half precision, or a logit
            is not finite.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> grad_cam(model, torch.rand(4, 3, 16, 16), torch.zeros(4, dtype=torch.long), layer="1").shape
        torch.Size([4, 16, 16])

    Source: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, 2017.
    """
    name, hook = _deepest(model) if layer is None else layer, StageHook()
    handle = submodule(eager(model), name, "layer").register_forward_hook(hook)
    try:
        with scoring(model, x), torch.enable_grad():
            hook.armed = True
            z = checked(call(model, plain(x).detach().requires_grad_()))
            maps = hook.output
            # timm's transformers may give (B, H, W, K), and their tokens see the whole image wherever they lie.
            layout = getattr(eager(model), "output_fmt", "NCHW")
            if not isinstance(maps, Tensor) or maps.dim() != 4 or layout != "NCHW":
                raise ValueError(f"layer: {name} gives no map (B, K, H, W), as layers of a convolutional network do")
            (gradient,) = torch.autograd.grad(z[range(len(z)), classes.tolist()].sum(), maps)
    finally:
        handle.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    cam = (weights * maps.detach()).sum(dim=1, keepdim=True).relu()
    cam = F.interpolate(cam, size=x.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)
    return cam / cam.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(cam.dtype).tiny)


def _deepest(model: nn.Module) -> str:
    try:
        return find_stages(model)[-1]
    except ValueError:
        raise ValueError(
            f"layer: the deepest map of this {type(eager(model)).__name__} is not known; name the module that gives it"
        ) from None
