"""Take the bare student of a finished run elsewhere: one file, checked against PyTorch before it is there."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from selfdistill.config.train_config import SMALL
from selfdistill.errors import ArgumentError, NonFiniteError, naming
from selfdistill.files import write_atomically
from selfdistill.network import DIVERGED
from selfdistill.runs.folders import check_writable
from selfdistill.training import LoadedModel, load_run
from selfdistill.training.export import description, save_weights

Format = Literal["onnx", "pt2", "safetensors"]

TOLERANCE = 1e-4
"""So far, as a share of the largest logit, an exported model may be from PyTorch's: float32 summed in another order."""

_BATCHES = (1, 3)  # neither is the batch that is traced
_TRACED = 2
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: where.
        size: in bytes.
        difference: the largest absolute difference of an output to PyTorch's, over all images of the check.
        model: what was exported: its classes, its image size and its normalisation.
        output: "logits" or "probabilities".
    """

    path: Path
    size: int
    difference: float
    model: LoadedModel
    output: str = "logits"


class Probabilities(nn.Module):
    """A classifier with softmax(z / T) for its logits z: ``(B, C)``, each row of sum 1.

    Example:
        >>> Probabilities(nn.Identity(), temperature=2.0)(torch.zeros(1, 4))
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """

    def __init__(self, model: nn.Module, temperature: float):
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, images: Tensor) -> Tensor:
        """Return the probabilities."""
        return F.softmax(self.model(images) / self.temperature, dim=1)


def export_run(run: Path, kind: Format, out: Path | None = None, *, probabilities: bool = False) -> Exported:
    """Write the student of a run as one file that needs nothing of this package.

    The file appears under its name when its own outputs were compared with PyTorch's, on batches of 1 and 3 images:
    noise, and smooth pictures. Where they differ, nothing is written. ``"onnx"`` and ``"pt2"`` (``torch.export``) take
    batches of any size; ``"safetensors"`` holds the weights under the model's own names. Each holds what ``model.json``
    holds, as JSON: the architecture, the classes in the order of the outputs, the image size, mean, standard deviation
    and the temperature where one was fitted; and ``"output": "probabilities"`` where these are what comes out.

    Args:
        out: where to; ``exported.onnx``, ``exported.pt2`` or ``exported.safetensors`` in the run's folder if None.
        probabilities: the outputs are softmax(logits / T) at the run's temperature.

    Raises:
        ValueError: no finished run, a name of another kind, or probabilities of bare weights.
        RuntimeError: a package is missing, the model cannot be exported, or the outputs differ.
        OSError: the file cannot be written.
    """
    out = out or run / f"exported.{kind}"
    _refuse(out, run, kind)
    if probabilities and kind == "safetensors":
        raise ArgumentError("probabilities", "would be ignored: bare weights have no output; `format` is onnx or pt2")
    known, loaded, output = description(run), load_run(run), "logits"
    if probabilities:
        output = known["output"] = "probabilities"
        loaded = replace(loaded, model=Probabilities(loaded.model, loaded.temperature).eval())
    write = {"onnx": as_onnx, "pt2": as_pt2, "safetensors": as_safetensors}[kind]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / out.name
        try:
            exported = write(loaded, known, file)
        except Exception as error:  # what a model may hold that cannot be traced is without end
            raise RuntimeError(f"{known['model']} cannot be exported as {kind}: {_reason(error)}") from error
        with naming(run):
            difference = compare(exported, loaded, kind)
        content = file.read_bytes()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, content)
    return Exported(out, len(content), difference, loaded, output)


def as_onnx(loaded: LoadedModel, known: dict[str, Any], path: Path) -> Callable[[Tensor], Tensor]:
    """Write ONNX, ``images`` to ``logits`` or ``probabilities``, and return what ONNX Runtime makes of it."""
    import onnxruntime

    output = known.get("output", "logits")
    with sdpa_kernel(SDPBackend.MATH):  # of fused attention the exporter does not know the strides
        program = torch.onnx.export(
            loaded.model,
            (_traced(loaded),),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=[output],
            dynamic_shapes=_any_batch(),
        )
    assert program is not None
    graph = program.model.graph
    for part in (*graph, *graph.inputs, *graph.outputs, *graph.initializers.values()):
        part.metadata_props.clear()  # stack traces, which name this machine's folders
    for node in graph:
        for value in node.outputs:
            value.metadata_props.clear()
    program.model.metadata_props.update({name: json.dumps(value) for name, value in known.items()})
    program.save(path, external_data=False)
    options = onnxruntime.SessionOptions()
    # Unset, it pins threads to processors and warns if it may not.
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([output], {"images": images.numpy()})[0])


def as_pt2(loaded: LoadedModel, known: dict[str, Any], path: Path) -> Callable[[Tensor], Tensor]:
    """Write a program of ``torch.export``, with the description as the extra file ``model.json``; return it loaded."""
    program = torch.export.export(loaded.model, (_traced(loaded),), dynamic_shapes=_any_batch())
    program.example_inputs = None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names this machine's folders
    torch.export.save(program, path, extra_files={"model.json": json.dumps(known)})
    return torch.export.load(path).module()


def as_safetensors(loaded: LoadedModel, known: dict[str, Any], path: Path) -> Callable[[Tensor], Tensor]:
    """Write the weights with the description as metadata, and return the model that is built from the file alone."""
    save_weights(loaded.model, path, {name: json.dumps(value) for name, value in known.items()})
    return load_run(path).model


def compare(exported: Callable[[Tensor], Tensor], loaded: LoadedModel, kind: Format) -> float:
    """Return the largest absolute difference of the outputs.

    Args:
        exported: images ``(B, K, S, S)`` to outputs ``(B, C)``.

    Raises:
        RuntimeError: it is more than ``TOLERANCE`` of the largest output, or an output is not a finite number.
    """
    largest = 0.0
    for images in check_images(loaded):
        with torch.inference_mode():
            wanted, got = loaded.model(images), exported(images)
        if not wanted.isfinite().all():
            raise NonFiniteError(f"the logits of the model itself are not finite numbers; {DIVERGED}")
        if got.shape != wanted.shape:
            raise RuntimeError(f"the {kind} model returns {tuple(got.shape)}, not {tuple(wanted.shape)}")
        difference, allowed = (got - wanted).abs().max().item(), TOLERANCE * wanted.abs().max().item()
        if not difference <= allowed:
            raise RuntimeError(
                f"the {kind} model differs from PyTorch's by {difference:.2g} where {allowed:.2g} is allowed "
                f"(batch of {len(images)}): nothing was written"
            )
        largest = max(largest, difference)
    return largest


def check_images(loaded: LoadedModel) -> list[Tensor]:
    """Return normalised batches ``(B, K, S, S)``: noise, and smooth pictures of values that images have."""
    generator, size, channels = torch.Generator().manual_seed(0), loaded.image_size, loaded.channels
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (loaded.mean, loaded.std))
    batches = []
    for count in _BATCHES:
        batches.append(torch.randn(count, channels, size, size, generator=generator))
        coarse = torch.rand(count, channels, 4, 4, generator=generator)
        batches.append((F.interpolate(coarse, size=(size, size), mode="bilinear") - mean) / std)
    return batches


def in_words(exported: Exported) -> str:
    """Return what was written and how to feed it, in lines of at most 100 characters or so."""
    model, size, channels = exported.model, exported.model.image_size, exported.model.channels
    colours = "RGB, " if channels == 3 else ""
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (model.mean, model.std))
    how = f"{model.resizing.in_words(size)}, {model.resizing.interpolation}"
    return "\n".join(
        [
            f"{exported.path}: {exported.size / 2**20:.2f} MiB; {exported.output} differ from PyTorch's by at most "
            f"{exported.difference:.2g}",
            f"input: (B, {channels}, {size}, {size}), float32, {colours}(pixels / 255 - mean) / std",
            f"    mean {mean}; std {std}",
            *([f"    of image files: {how}"] if size > SMALL else []),
            f"output: {exported.output} (B, {len(model.classes)}), in the order of the classes that the file names",
        ]
    )


def _refuse(out: Path, run: Path, kind: Format) -> None:
    """Refuse at once what would be found out minutes later, and the name of a file that is something else."""
    missing = [name for name in _ONNX_PACKAGES if find_spec(name) is None] if kind == "onnx" else []
    if missing:
        raise RuntimeError(f'`format="onnx"` needs {" and ".join(missing)}: pip install "selfdistill[onnx]"')
    if out.suffix != f".{kind}":
        raise ArgumentError("out", f"is {out}, which does not end in .{kind}, the ending of `format={kind}`")
    if out.is_dir():
        raise ArgumentError("out", f"is {out}, a folder: name a file in it")
    check_writable(out.parent)
    if out.resolve() == (run / "model.safetensors").resolve():
        raise ArgumentError("out", f"is {out}, the run's own file: choose another name")


def _traced(loaded: LoadedModel) -> Tensor:
    """Return what is traced; a pass beforehand fills what the model keeps between passes, so that it is a constant."""
    images = torch.zeros(_TRACED, loaded.channels, loaded.image_size, loaded.image_size)
    with torch.no_grad():
        loaded.model(images)
    return images


def _reason(error: BaseException) -> str:
    """Return the first line of what was the matter in the first place: exporters wrap it in advice to their makers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _any_batch() -> tuple[dict[int, Any], ...]:
    return ({0: torch.export.Dim("batch")},)
