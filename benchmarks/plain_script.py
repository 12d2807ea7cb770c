"""A plain PyTorch training of the usual kind, as a careful user would write it: what the library is compared with.

Float32 with torch's default TF32 settings, NCHW, PIL transforms in a DataLoader's workers, ``loss.item()`` each step.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock
from torchvision.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, ToTensor

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class Cifar(Dataset[tuple[torch.Tensor, int]]):
    """Arrays (N, 32, 32, 3) and labels as torchvision's CIFAR100 holds them: an image is a PIL image."""

    def __init__(self, images: np.ndarray, labels: list[int], transform: Callable[[Image.Image], torch.Tensor]):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def resnet18(classes: int) -> nn.Module:
    """ResNet-18 for 32-pixel images."""
    model: nn.Module = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=classes)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


class Training:
    """One training; ``epoch()`` goes once over the images and yields after each step."""

    def __init__(self, images: np.ndarray, labels: list[int], *, batch_size: int, workers: int, device: torch.device):
        self.device = device
        transform = Compose([RandomCrop(32, padding=4), RandomHorizontalFlip(), ToTensor(), Normalize(MEAN, STD)])
        self.loader = DataLoader(
            Cifar(images, labels, transform),
            batch_size=batch_size,
            shuffle=True,
            num_workers=workers,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
        )
        self.model = resnet18(100).to(device)
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def epoch(self) -> Iterator[float]:
        """Train once over the images; yield the mean loss so far."""
        self.model.train()
        total = 0.0
        for step, (x, y) in enumerate(self.loader, 1):
            x, y = x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)
            loss = self.criterion(self.model(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.item()
            yield total / step
