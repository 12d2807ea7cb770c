"""What the CIFAR networks share: the classifier h, the widening before the pooling, the start of convolutions."""

from torch import nn

from selfdistill.errors import ArgumentError


def classifier(features: int, classes: int, layers: int = 1) -> nn.Module:
    """Make the head h of one fully connected layer, or of two as in the paper's Table 13.

    Args:
        features: D, the number of pooled features, at least 1.
        classes: C, the number of classes, at least 2.
        layers: 1 for ``Linear(D, C)``; 2 for ``Linear(D, D)``, ReLU, ``Linear(D, C)``.

    Shapes:
        ``(B, D) -> (B, C)``.

    Example:
        >>> classifier(8, 3, layers=2)
        Sequential(
          (0): Linear(in_features=8, out_features=8, bias=True)
          (1): ReLU()
          (2): Linear(in_features=8, out_features=3, bias=True)
        )

    Source: Section 5.3 and Table 13 of the paper, which leave the hidden width open; D is our reading.
    """
    check_classes(classes)
    if layers not in (1, 2):
        raise ArgumentError("head_layers", f"must be 1 or 2, not {layers}: one fully connected layer, or two")
    if layers == 1:
        return nn.Linear(features, classes)
    return nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, classes))


def widen(channels: int, features: int | None) -> tuple[nn.Module, int]:
    """Make the 1x1 convolution, BatchNorm and ReLU that give the pooled feature ``features`` units.

    A narrow network has few pooled features, and dropping half of few is costly; this widens them alone.

    Args:
        channels: channels of the last stage, at least 1.
        features: D, at least 1; ``None`` keeps the channels and adds nothing.

    Shapes:
        ``(B, channels, H, W) -> (B, D, H, W)``.

    Returns:
        The module and D.

    Example:
        >>> widen(16, None)
        (Identity(), 16)
        >>> module, features = widen(16, 64)
        >>> module[0], features
        (Conv2d(16, 64, kernel_size=(1, 1), stride=(1, 1), bias=False), 64)
    """
    if features is None:
        return nn.Identity(), channels
    if features < 1:
        raise ArgumentError("features", f"must be at least 1, not {features}; leave it out to keep {channels}")
    convolution = nn.Conv2d(channels, features, kernel_size=1, bias=False)
    initialise_convolutions(convolution)
    return nn.Sequential(convolution, nn.BatchNorm2d(features), nn.ReLU(inplace=True)), features


def initialise_convolutions(network: nn.Module) -> None:
    r"""Draw the weights of a network's convolutions as torchvision's ResNets do: Kaiming normal, fan out, ReLU.

    That is :math:`N(0, 2 / (k^2 C_{out}))` for :math:`C_{out}` channels out and kernels of k x k.

    Example:
        >>> import torch
        >>> convolution = nn.Conv2d(4, 512, kernel_size=3)
        >>> initialise_convolutions(convolution)
        >>> bool(abs(convolution.weight.std() - (2 / (9 * 512)) ** 0.5) < 1e-3)
        True

    Source: He et al., "Delving Deep into Rectifiers" (2015).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def check_width(width: int) -> None:
    """Refuse a width that is not a positive number of channels."""
    if width < 1:
        raise ArgumentError("width", f"must be at least 1, not {width}: it is a number of channels")


def check_classes(classes: int) -> None:
    """Refuse fewer than two classes."""
    if classes < 2:
        raise ArgumentError("classes", f"must be at least 2, not {classes}: a classifier tells classes apart")
