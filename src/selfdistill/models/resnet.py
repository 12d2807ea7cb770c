"""The ResNets of the paper with a 3x3 stem: torchvision's basic-block network without max-pooling, or with it."""

from torch import Tensor, nn

from selfdistill.models.parts import check_width, classifier, initialise_convolutions, widen


class CifarResNet(nn.Module):
    """A residual network for small images, ``z = fc(GAP(layer4(layer3(layer2(layer1(stem(x)))))))``.

    The names of its parts are torchvision's, so a torchvision ResNet whose stem is replaced has the same
    ``state_dict`` keys (with ``features=None`` and ``head_layers=1``).

    Args:
        blocks: residual blocks in each of the four stages: (2, 2, 2, 2) is ResNet-18.
        classes: C, at least 2.
        width: channels of the first stage, at least 1; the stages have width, 2, 4 and 8 times width.
        features: D, the pooled features; by default 8 * width. Given, a 1x1 convolution, BatchNorm and
            ReLU before the pooling make it so (``widen``).
        head_layers: fully connected layers of ``fc``, 1 or 2 (Table 13).
        pool: put torchvision's max-pooling behind the stem: 3x3, stride 2.

    Shapes:
        ``(B, 3, H, W) -> (B, C)``; the feature before ``fc`` is ``(B, D)``. With ``pool`` the stages see a map of half
        the sides, where torchvision's own 7x7 stem of stride 2 leaves a quarter.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> import torch
        >>> net = CifarResNet((1, 1, 1, 1), classes=10, width=8)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> net.fc
        Linear(in_features=64, out_features=10, bias=True)

    Source: Section 4.1.1 of the paper; He et al., "Deep Residual Learning for Image Recognition" (2016).
    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        classes: int,
        *,
        width: int = 64,
        features: int | None = None,
        head_layers: int = 1,
        pool: bool = False,
    ) -> None:
        super().__init__()
        check_width(width)
        self.conv1 = nn.Conv2d(3, width, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1) if pool else nn.Identity()
        self.layer1 = _stage(width, width, blocks[0], stride=1)
        self.layer2 = _stage(width, 2 * width, blocks[1], stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks[2], stride=2)
        self.layer4 = _stage(4 * width, 8 * width, blocks[3], stride=2)
        self.widen, pooled = widen(8 * width, features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = classifier(pooled, classes, head_layers)
        initialise_convolutions(self)

    def reset_parameters(self) -> None:
        """Draw all weights anew, as the constructor did."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
                module.reset_parameters()
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits z ``(B, C)`` of the images x ``(B, 3, H, W)``."""
        maps: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        # flatten(1) rather than a squeeze: a batch of one keeps its first axis.
        logits: Tensor = self.fc(self.avgpool(self.widen(maps)).flatten(1))
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, ``relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))``.

    Args:
        channels_in: channels of x.
        channels: channels of the output.
        stride: 1, or 2 to halve the map; the shortcut is then (as where the channels change) a 1x1
            convolution and BatchNorm.

    Shapes:
        ``(B, channels_in, H, W) -> (B, channels, H / stride, W / stride)``.

    Example:
        >>> import torch
        >>> BasicBlock(4, 8, stride=2)(torch.zeros(2, 4, 6, 6)).shape
        torch.Size([2, 8, 3, 3])
    """

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            shortcut = nn.Conv2d(channels_in, channels, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's map."""
        residual: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        output: Tensor = self.relu(residual + self.downsample(x))
        return output


def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    """One stage: the first block changes the size and the channels, the others keep them."""
    rest = [BasicBlock(channels, channels) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(channels_in, channels, stride), *rest)
