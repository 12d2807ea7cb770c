"""Four small classifiers that differ where it matters: BatchNorm and a skip, attention, neither, a mapping as input."""

from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 5


class Residual(nn.Module):
    """Two convolutions with BatchNorm and a skip connection past them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm1(self.conv1(x)).relu()
        return (x + self.norm2(self.conv2(out))).relu()


class ConvNet(nn.Module):
    """A ResNet of one block: its head is ``fc``, a good place to drop out is ``block``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.block = Residual(8)
        self.after = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.fc = nn.Linear(16, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        return self.after(self.block(self.norm(self.stem(x)).relu())).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


class Attention(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class AttentionNet(nn.Module):
    """A small ViT: patches, a class token, two layers; its head is ``head``."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, 12))
        self.layers = nn.Sequential(Attention(12), Attention(12))
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], dim=1)
        return self.head(self.norm(self.layers(tokens)[:, 0]))


def mlp() -> nn.Sequential:
    """No BatchNorm, no randomness of its own; its head is ``3``."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 24), nn.ReLU(), nn.Linear(24, CLASSES))


class HubOutput(dict[str, Any]):
    """As the Hugging Face models answer: a mapping whose entries are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class MappingNet(nn.Module):
    """Reads keyword arguments and returns a mapping, as the Hugging Face models do; its head is ``classifier``."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16), nn.Tanh())
        self.pooler = nn.Linear(16, 16)
        self.classifier = nn.Linear(16, CLASSES)

    def forward(self, pixel_values: Tensor, brightness: Tensor) -> HubOutput:
        hidden = self.encoder(pixel_values * brightness[:, None, None, None])
        return HubOutput(logits=self.classifier(self.pooler(hidden).tanh()), hidden_states=hidden)


NETS = {"conv": ConvNet, "attention": AttentionNet, "mlp": mlp, "mapping": MappingNet}
"""How to build each."""

INNER = {"conv": "block", "attention": "layers.0", "mlp": "1", "mapping": "encoder"}
"""A module inside each whose output is all that later layers read."""

HEADS = {"conv": "fc", "attention": "head", "mlp": "3", "mapping": "classifier"}
"""Where the head of each is."""


def batch(net: str, size: int = 6) -> tuple[Any, Tensor]:
    """Return ``size`` inputs of this net and their labels."""
    images, labels = torch.randn(size, 3, 8, 8), torch.arange(size) % CLASSES
    return ({"pixel_values": images, "brightness": torch.rand(size) + 0.5} if net == "mapping" else images), labels
