"""The CIFAR DenseNet of the paper: growth rate 32, blocks of 6, 12, 24 and 16 layers, a bare 3x3 stem."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from selfdistill.models.parts import check_width, classifier, widen


class CifarDenseNet(nn.Module):
    """A densely connected network for small images, ``z = classifier(GAP(ReLU(BN(last block))))``.

    The names of its parts are torchvision's. Unlike torchvision's, its stem is one 3x3 convolution without
    stride, BatchNorm, ReLU or pooling, as in the network that the paper's tables were made with.

    Args:
        classes: C, at least 2.
        blocks: dense layers in each of the four blocks: (6, 12, 24, 16) is DenseNet-121.
        width: the growth rate, at least 1: channels that each dense layer adds; the stem has twice as many.
        features: D, the pooled features; by default those of the last block (1024 for DenseNet-121).
            Given, a 1x1 convolution, BatchNorm and ReLU before the pooling make it so (``widen``).
        head_layers: fully connected layers of ``classifier``, 1 or 2 (Table 13).

    Shapes:
        ``(B, 3, H, W) -> (B, C)`` with H and W at least 8; the feature before ``classifier`` is ``(B, D)``.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> import torch
        >>> net = CifarDenseNet(classes=10, blocks=(2, 2, 2, 2), width=4)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])

    Source: Section 4.1.1 of the paper; Huang et al., "Densely Connected Convolutional Networks" (2017).
    """

    def __init__(
        self,
        classes: int,
        *,
        blocks: tuple[int, int, int, int] = (6, 12, 24, 16),
        width: int = 32,
        features: int | None = None,
        head_layers: int = 1,
    ) -> None:
        super().__init__()
        check_width(width)
        channels = 2 * width
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["conv0"] = nn.Conv2d(3, channels, kernel_size=3, padding=1, bias=False)
        for number, layers in enumerate(blocks, start=1):
            parts[f"denseblock{number}"] = _dense_block(channels, layers, width)
            channels += layers * width
            if number < len(blocks):
                parts[f"transition{number}"] = _transition(channels)
                channels //= 2
        parts["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(parts)
        self.relu = nn.ReLU(inplace=True)
        self.widen, pooled = widen(channels, features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = classifier(pooled, classes, head_layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits z ``(B, C)`` of the images x ``(B, 3, H, W)``."""
        maps: Tensor = self.widen(self.relu(self.features(x)))
        logits: Tensor = self.classifier(self.avgpool(maps).flatten(1))
        return logits


class DenseLayer(nn.Module):
    """A 1x1 and a 3x3 convolution whose ``growth`` new channels are put behind those of x.

    Args:
        channels: channels of x.
        growth: channels that are added.

    Shapes:
        ``(B, channels, H, W) -> (B, channels + growth, H, W)``.

    Example:
        >>> DenseLayer(6, 4)(torch.zeros(2, 6, 8, 8)).shape
        torch.Size([2, 10, 8, 8])
    """

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, 4 * growth, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4 * growth, growth, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x and the new channels."""
        new = self.conv2(self.relu2(self.norm2(self.conv1(self.relu1(self.norm1(x))))))
        return torch.cat([x, new], dim=1)


def _dense_block(channels: int, layers: int, growth: int) -> nn.Sequential:
    widths = [channels + i * growth for i in range(layers)]
    named = ((f"denselayer{i}", DenseLayer(width, growth)) for i, width in enumerate(widths, start=1))
    return nn.Sequential(OrderedDict(named))


def _transition(channels: int) -> nn.Sequential:
    """Halve the channels and the map."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(channels, channels // 2, kernel_size=1, bias=False),
            pool=nn.AvgPool2d(kernel_size=2, stride=2),
        )
    )
