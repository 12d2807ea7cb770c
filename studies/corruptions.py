"""How far each corruption moves an image at each severity: the mean absolute difference to the clean one, 0 to 255.

uv run python studies/corruptions.py     measures CIFAR-100's test images (test.npz in data/cifar100; where it is
                                              not there, the committed record is kept) and two photographs, writes the
                                              records below results/corruptions and prints their tables
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor

from selfdistill.data.arrays import read_npz
from selfdistill.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt, mean_distance
from selfdistill.report.tables import Table, markdown

RESULTS = Path(__file__).resolve().parents[1] / "results" / "corruptions"
SOURCE = Path("data") / "cifar100" / "test.npz"
MOST = 2000
"""Images of CIFAR-100 that are measured, evenly spaced: they fix a distance to about one percent."""


def cifar100() -> Tensor | None:
    """Evenly spaced test images, uint8 (2000, 3, 32, 32), or None where the set is not there."""
    if not SOURCE.is_file():
        return None
    images = read_npz(SOURCE, None)[0].images
    assert images is not None
    return images[torch.arange(MOST) * len(images) // MOST]


def photographs() -> Tensor:
    """The middles of the two photographs that ship with scikit-learn, uint8 (2, 3, 224, 224)."""
    parts = [np.array(photograph[100:324, 200:424]) for photograph in load_sample_images().images]
    return torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2).contiguous()


def measure(images: Tensor, data: str, constants: str) -> dict[str, Any]:
    """Return the record of a set of images: what it is, and five distances a corruption."""
    return {
        "data": data,
        "n": len(images),
        "image_size": images.shape[-1],
        "constants": constants,
        "seed": 0,
        "unit": "mean absolute difference to the clean image, levels of 255",
        "distance": {
            name: [round(mean_distance(images, corrupt(images, name, severity)), 3) for severity in SEVERITIES]
            for name in CORRUPTIONS
        },
    }


def load(name: str) -> dict[str, Any]:
    """Return a committed record."""
    record: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return record


def save(name: str, record: dict[str, Any]) -> None:
    """Write a record, a line a corruption."""
    lines = [f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in record["distance"].items()]
    head = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in record.items() if key != "distance"]
    RESULTS.mkdir(parents=True, exist_ok=True)
    body = ",\n".join([*head, '  "distance": {\n' + ",\n".join(lines) + "\n  }"])
    (RESULTS / f"{name}.json").write_text("{\n" + body + "\n}\n")


def distance_table(record: dict[str, Any]) -> str:
    """One row a corruption, one column a severity; frost is named for what it is."""
    rows = [
        (name.replace("_", " ") + (" (procedural)" if name == "frost" else ""), *(f"{value:.1f}" for value in values))
        for name, values in record["distance"].items()
    ]
    headings = ("Corruption", *(f"Severity {severity}" for severity in SEVERITIES))
    return markdown(Table(headings, tuple(rows)))


def caption(record: dict[str, Any]) -> str:
    """Say what a table was measured on."""
    size = record["image_size"]
    return f"{record['data']}, n = {record['n']:,}, {size} x {size}, constants of {record['constants']}, seed 0."


def main() -> None:
    """Measure, write and print."""
    small = cifar100()
    if small is None:
        print(f"skipped CIFAR-100: no {SOURCE}; the committed record is printed\n")
    else:
        save("cifar100", measure(small, "CIFAR-100 test images, evenly spaced", "CIFAR-C"))
    save("photographs", measure(photographs(), "scikit-learn's two photographs, their middles", "ImageNet-C"))
    for name in ("cifar100", "photographs"):
        record = load(name)
        print(f"{caption(record)}\n\n{distance_table(record)}\n")


if __name__ == "__main__":
    main()
