"""A plain PyTorch fine-tuning of the usual kind, run after run: what ``compare`` is compared with.

Each photograph is decoded in each epoch, by torchvision's ImageFolder in a DataLoader; a frozen backbone is passed in
each step. The methods are this library's, in two lines of the loop.
"""

import argparse
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import (
    CenterCrop,
    Compose,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToTensor,
)

from selfdistill import SelfDistiller
from selfdistill.methods import parse_method


def loader(
    folder: Path, size: int, workers: int, normalize: Normalize, part: str, *, augment: bool
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches of a part: augmented and shuffled, or as they are tested."""
    steps = [RandomResizedCrop(size), RandomHorizontalFlip()]
    steps = steps if augment else [Resize(round(size * 256 / 224)), CenterCrop(size)]
    images = ImageFolder(str(folder / part), Compose([*steps, ToTensor(), normalize]))
    return DataLoader(images, 32 if augment else 64, shuffle=augment, num_workers=workers)


def pretrained(name: str, weights: Path, classes: int, freeze: bool) -> Any:
    """The model with its weights and a new head; BatchNorm keeps its statistics."""
    model: Any = timm.create_model(name)
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.reset_classifier(classes)
    if freeze:
        model.requires_grad_(False)
        model.get_classifier().requires_grad_(True)
    return model.eval()


def fine_tune(given: argparse.Namespace, method: str, seed: int) -> float:
    """Train once; return the test accuracy of the last epoch."""
    torch.manual_seed(seed)
    classes = len(list((given.folder / "train").iterdir()))
    model = pretrained(given.model, given.weights, classes, given.freeze)
    distiller = SelfDistiller(model, parse_method(method), example_input=torch.randn(2, 3, given.size, given.size))
    cfg = model.pretrained_cfg
    setting = given.folder, given.size, given.workers, Normalize(cfg["mean"], cfg["std"])
    training, test = loader(*setting, "train", augment=True), loader(*setting, "test", augment=False)
    optimizer = torch.optim.AdamW([p for p in distiller.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, given.epochs * len(training))
    accuracy = 0.0
    for _ in range(given.epochs):
        distiller.train()
        model.eval()
        for x, y in training:
            distiller(x, y).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        distiller.eval()
        with torch.inference_mode():
            hits = [(model(x).argmax(dim=1) == y).float() for x, y in test]
        accuracy = float(torch.cat(hits).mean())
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--seeds", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--freeze", action="store_true")
    arguments = parser.parse_args()
    for seed in range(arguments.seeds):
        for method in arguments.methods:
            print(f"{method} seed {seed}: {fine_tune(arguments, method, seed):.3f}", flush=True)
