"""``selfdistill export``."""

from typing import Literal

from selfdistill.cli.options import File, OptionalText
from selfdistill.cli.show import print_lines
from selfdistill.errors import ArgumentError


def export(
    run: File,
    /,
    *,
    format: Literal["onnx", "pt2", "safetensors"] = "onnx",
    out: File | None = None,
    probabilities: bool = False,
    hub: OptionalText = None,
    private: bool = False,
) -> None:
    """Write a trained network as one file for use elsewhere, or push it to the Hugging Face hub.

    ONNX, a PyTorch program (torch.export) or the bare weights; the file also holds the classes, the image size and the
    normalisation. It is written only after its outputs have been compared with PyTorch's. ONNX needs pip install
    "selfdistill[onnx]".

    For example:
        selfdistill export runs/photos/sddropout-seed0 --format onnx --out photos.onnx
        selfdistill export runs/photos/sddropout-seed0 --hub user/photos --private

    Args:
        run: folder of a run
        format: file format
        out: the file (default: exported.onnx, .pt2 or .safetensors in the run's folder)
        probabilities: the outputs are probabilities at the fitted temperature, not logits (onnx and pt2)
        hub: push weights, description and a card with the run's numbers to this repository of the hub instead
        private: make that repository private
    """
    if hub is not None:
        from selfdistill.runs.sharing.hub import push_run

        ignored = (("format", format != "onnx"), ("out", out is not None), ("probabilities", probabilities))
        for name, value in ignored:
            if value:
                raise ArgumentError(name, "would be ignored: `hub` gets the weights")
        print_lines(push_run(run, hub, private=private))
        return
    if private:
        raise ArgumentError("private", "belongs to `hub`, which is not given")
    from selfdistill.runs.export import export_run, in_words

    print_lines(in_words(export_run(run, format, out, probabilities=probabilities)))
