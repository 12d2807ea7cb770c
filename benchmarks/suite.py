"""What the evaluation suite costs beyond the bare passes that it needs.

uv run python benchmarks/suite.py                          ResNet-18 of the paper on noise, one table
uv run python benchmarks/suite.py --width 16 --images 500  another network
uv run python benchmarks/suite.py --json suite.json        the numbers too

The network's calls are counted while the suite runs: forward passes without a graph, forward passes with one, and
backward passes to the input, each in images. The bare cost of these counts is measured in the same process, in turns
with the suite, with plain loops over batches of the same size; the ratio is the suite's time over it.
"""

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from selfdistill.data import ImageData, Split
from selfdistill.data.unlabelled import Unlabelled
from selfdistill.evaluation.images import Images, predict
from selfdistill.evaluation.suite import evaluate
from selfdistill.models import build
from selfdistill.records.evaluation import MEASURES
from selfdistill.training.record import provenance

CLASSES = 100


@dataclass(frozen=True)
class Row:
    """One measure: seconds of the suite and of its bare passes, medians over the repeats, and image counts."""

    measure: str
    seconds: float
    bare: float
    forward: int
    forward_with_graph: int
    backward: int

    @property
    def ratio(self) -> float:
        """The suite's time over that of its bare passes."""
        return self.seconds / self.bare


class Counted(nn.Module):
    """A network that counts the images of its passes."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.images: Counter[str] = Counter()

    def forward(self, x: Tensor) -> Tensor:
        """The network's logits."""
        graph = torch.is_grad_enabled() and x.requires_grad
        self.images["forward_with_graph" if graph else "forward"] += len(x)
        if graph:
            x.register_hook(lambda gradient: self.images.update(backward=len(gradient)))
        logits: Tensor = self.model(x)
        return logits


def noise(images: int, *, classes: int, seed: int, size: int) -> Split:
    """Uniform noise: what a pass costs does not depend on what the images show."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (images, 3, size, size), generator=generator, dtype=torch.uint8)
    return Split(torch.arange(images) % classes, images=pixels)


def bare_seconds(model: nn.Module, x: Tensor) -> dict[str, float]:
    """Seconds per image of each kind of pass, over one batch."""
    started = time.perf_counter()
    with torch.inference_mode():
        model(x)
    forward = time.perf_counter() - started
    leaf = x.clone().requires_grad_()
    started = time.perf_counter()
    logits = model(leaf)
    with_graph = time.perf_counter() - started
    started = time.perf_counter()
    torch.autograd.grad(nn.functional.cross_entropy(logits, logits.argmax(1), reduction="sum"), leaf)
    backward = time.perf_counter() - started
    seconds = {"forward": forward, "forward_with_graph": with_graph, "backward": backward}
    return {kind: value / len(x) for kind, value in seconds.items()}


def measure(
    name: str, model: Counted, data: ImageData, ood_sets: Sequence[Unlabelled], *, batch_size: int, repeats: int
) -> Row:
    """Time one measure of the suite in turns with its bare passes."""
    x = torch.randn(min(batch_size, len(data.test)), 3, data.image_size, data.image_size)
    asked = {"device": "cpu", "max_images": len(data.test), "batch_size": batch_size, "train": False}
    measures = [] if name == "accuracy and calibration" else [name]
    seconds, bare = [], []
    for _ in range(repeats):
        model.images.clear()
        started = time.perf_counter()
        evaluate(model, data, measures=measures, ood_sets=ood_sets, **asked)  # type: ignore[arg-type]
        seconds.append(time.perf_counter() - started)
        cost = bare_seconds(model.model, x)
        bare.append(sum(cost[kind] * count for kind, count in model.images.items()))
    return Row(name, statistics.median(seconds), statistics.median(bare), **{k: model.images[k] for k in cost})


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print the table; return its rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="resnet18_cifar")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--images", type=int, default=64, help="test images; as many out-of-distribution ones")
    parser.add_argument("--size", type=int, default=32, help="side of the images, pixels")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    model = Counted(build(given.model, CLASSES, width=given.width)).eval()
    test = noise(given.images, classes=CLASSES, seed=0, size=given.size)
    data = ImageData(
        name="noise",
        train=test,
        test=test,
        classes=tuple(map(str, range(CLASSES))),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        image_size=given.size,
        augment="none",
        test_split_description="noise",
    )
    # The network's own predictions as labels: PGD attacks what is right, so that is the dearest case.
    logits, _ = predict(model.model, Images(test, data, "cpu").batches())
    test = Split(logits.argmax(dim=1), images=test.images)
    data = replace(data, train=test, test=test)
    ood_sets = [Unlabelled("noise", noise(given.images, classes=1, seed=1, size=given.size), "as they are")]
    evaluate(model, data, device="cpu", measures=MEASURES, ood_sets=ood_sets, max_images=2, batch_size=given.batch_size)
    rows = []  # what came before warmed up: the first calls are slow
    print(
        f"{given.model}, width {given.width}, {given.images} images of {given.size} px, batches of {given.batch_size}"
    )
    print(f"{'measure':<26}{'suite, s':>10}{'bare, s':>10}{'ratio':>8}{'forward':>10}{'+ graph':>9}{'backward':>10}")
    for name in ("accuracy and calibration", "robustness", "shift", "ood"):
        row = measure(name, model, data, ood_sets, batch_size=given.batch_size, repeats=given.repeats)
        rows.append(row)
        print(
            f"{name:<26}{row.seconds:>10.2f}{row.bare:>10.2f}{row.ratio:>8.3f}"
            f"{row.forward:>10,}{row.forward_with_graph:>9,}{row.backward:>10,}",
            flush=True,
        )
    whole = sum(row.seconds for row in rows) / sum(row.bare for row in rows)
    print(f"{'all':<44}{whole:>10.3f}")
    if given.json:
        setting = {name: value for name, value in vars(given).items() if name != "json"}
        record = {"setting": setting, "ratio": whole, "rows": [asdict(row) for row in rows]}
        given.json.write_text(json.dumps(record | provenance(torch.device("cpu")), indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
