"""``selfdistill export``."""

from typing import Literal

from selfdistill.cli.options import File
from selfdistill.cli.show import print_lines


def export(run: File, /, *, format: Literal["onnx", "pt2", "safetensors"] = "onnx", out: File | None = None) -> None:
    """Write a trained network as one file for use elsewhere.

    ONNX, a PyTorch program (torch.export) or the bare weights; the file also holds the classes, the image size and the
    normalisation. It is written only after its outputs have been compared with PyTorch's. ONNX needs pip install
    "selfdistill[onnx]".

    For example:
        selfdistill export runs/photos/sddropout-seed0 --format onnx --out photos.onnx

    Args:
        run: folder of a run
        format: file format
        out: the file (default: exported.onnx, .pt2 or .safetensors in the run's folder)
    """
    from selfdistill.runs.export import export_run, in_words

    print_lines(in_words(export_run(run, format, out)))
