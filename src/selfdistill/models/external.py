"""Classifiers of torchvision and timm, which are imported on use."""

import hashlib
import os
import pickle
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlparse

import torch
from torch import nn

from selfdistill.errors import ArgumentError
from selfdistill.models.pretrained import SOURCES, pretrained
from selfdistill.text import first_line, nearest, quote


def from_torchvision(name: str, classes: int, default: bool) -> nn.Module:
    """Build torchvision's classifier ``name``, with the pretrained weights and a new head if ``default``."""
    try:
        from torchvision import models
    except ModuleNotFoundError as error:
        raise RuntimeError(f'"torchvision:{name}" needs torchvision: pip install "selfdistill[lab]"') from error
    known = models.list_models(module=models)
    if name not in known:
        raise unknown_model(name, known, "torchvision.models.list_models(module=torchvision.models)", "torchvision:")
    with warnings.catch_warnings():
        # GoogLeNet and Inception announce another initialisation to come: nothing a user can act on here.
        warnings.filterwarnings("ignore", message="The default weight initialization", category=FutureWarning)
        if not default:
            options = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
            model: nn.Module = models.get_model(name, num_classes=classes, **options)
            return model
        weights = models.get_model_weights(name).DEFAULT
        _check_cached(weights.url)
        try:
            with _tensors_alone():
                model = models.get_model(name, weights=weights)
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise _no_download(f"torchvision:{name}", error) from error
    if isinstance(model, models.Inception3):  # its pretrained form, unlike GoogLeNet's, keeps the classifier
        model.aux_logits, model.AuxLogits = False, None
    trained = len(weights.meta["categories"])
    if trained != classes:
        _replace_head(model, trained, classes)
    return model


def from_timm(name: str, classes: int, weights: str) -> nn.Module:
    """Build timm's model ``name``; timm fits the head of pretrained weights itself.

    Args:
        name: without ``"timm:"``.
        weights: ``"default"`` or what begins with one of ``SOURCES``; whatever else starts at random.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise RuntimeError(f'"timm:{name}" needs timm: pip install "selfdistill[lab]"') from error
    known = [*timm.list_models(), *timm.list_models(include_tags=True)]
    if name not in known:
        raise unknown_model(name, known, "timm.list_models(include_tags=True)", "timm:")
    from_source = weights.startswith(SOURCES)
    if weights != "default" and not from_source:
        model: nn.Module = timm.create_model(name, num_classes=classes)
        return model
    if not from_source and not timm.is_model_pretrained(name):
        raise ArgumentError(
            "weights", f"'default' do not exist for {'timm:' + name!r}: see timm.list_models(pretrained=True)"
        )
    try:
        with _tensors_alone():
            model = timm.create_model(weights if from_source else name, pretrained=True, num_classes=classes)
    except Exception as error:  # each of the hub's transports has errors of its own
        raise _no_download(weights if from_source else f"timm:{name}", error) from error
    trained = pretrained(f"timm:{name}", weights)
    if trained is None or trained.classes != classes:
        start_small(cast(Any, model).get_classifier())
    return model


def checkpoint_gradients(model: nn.Module) -> None:
    """Let a model of timm forget the activations of its blocks and compute them again in the backward pass.

    What its BatchNorm layers see is counted twice in their running statistics.
    """
    try:
        cast(Any, model).set_grad_checkpointing(True)
    except (AttributeError, AssertionError):  # timm asserts that it is not asked for where there is none
        name = getattr(model, "build_arguments", {}).get("name", type(model).__name__)
        raise ArgumentError(
            "gradient_checkpointing", f"is for models of timm that have it, not for {name}: leave it out"
        ) from None


def start_small(head: nn.Module) -> None:
    """Draw a new head's weights from a normal distribution with a standard deviation of .01, biases 0.

    The first predictions are then close to uniform. Some models start with weights of up to 1/sqrt(C): confident in
    random classes, and the gradient of that spoils pretrained features.
    """
    for parameter in head.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.01)
        else:
            nn.init.zeros_(parameter)


def unknown_model(name: str, known: Iterable[str], listing: str, prefix: str = "") -> ValueError:
    """Make the error for a name that is not among the known, with the nearest that is.

    Example:
        >>> print(unknown_model("resnet_18", ["resnet18", "vgg11"], "list_models()"))
        `model`: unknown model 'resnet_18'; did you mean 'resnet18'? All names: list_models()
    """
    near = nearest(name, known)
    suggestion = "." if near is None else f"; did you mean {prefix + near!r}?"
    return ArgumentError("model", f": unknown model {quote(prefix + name)}{suggestion} All names: {listing}")


def _replace_head(model: nn.Module, trained: int, classes: int) -> None:
    """Put a new layer in the place of the one with as many outputs as the weights have classes."""
    heads = {
        name: module
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) and module.out_features == trained)
        or (isinstance(module, nn.Conv2d) and module.out_channels == trained)
    }
    if len(heads) != 1:
        raise RuntimeError(
            f"{type(model).__name__} has {len(heads)} layers with {trained} outputs, so its head cannot be "
            f"told: build it with `weights='none'`, or for {trained} classes"
        )
    [(name, old)] = heads.items()
    bias = old.bias is not None
    if isinstance(old, nn.Linear):
        new: nn.Module = nn.Linear(old.in_features, classes, bias=bias)
    else:
        assert isinstance(old, nn.Conv2d)
        assert old.kernel_size == (1, 1)
        new = nn.Conv2d(old.in_channels, classes, kernel_size=1, bias=bias)
    parent, _, child = name.rpartition(".")
    start_small(new)
    setattr(model.get_submodule(parent), child, new)


def _check_cached(url: str) -> None:
    """Compare a download that is in the cache with the checksum in its name: torchvision does so for new ones alone."""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    known = re.search(r"-([0-9a-f]{8,})\.", cached.name)
    if known is None or not cached.exists():
        return
    digest = ""
    if cached.is_file():
        with cached.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(known[1]):
        raise OSError(
            f"{cached} is damaged, or not what {url} gives (another checksum): delete it to download it again"
        )


@contextmanager
def _tensors_alone() -> Iterator[None]:
    """Let the packages read what they downloaded with ``weights_only``, which some do not: nothing in it is run."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _no_download(name: str, error: Exception) -> OSError:
    return OSError(
        f"the weights of {name!r} could not be downloaded ({first_line(error)}): connect to the network, "
        "or give weights as a file or 'none'"
    )
