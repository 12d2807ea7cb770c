"""A Hugging Face dataset in a loop of your own: a local folder of images, its columns transformed as they are read.

python examples/huggingface_dataset.py
"""

import argparse
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader

from selfdistill import SDDropout, SelfDistiller


def write_photos(folder: Path) -> None:
    """Write train/CLASS/N.png and test/CLASS/N.png; your own folder takes its place."""
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        file = folder / ("train" if number < 1000 else "test") / str(label) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype("uint8")).save(file)


def to_tensors(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the tensors of some rows: called by the dataset whenever rows are read."""
    images = [torch.from_numpy(np.array(image.convert("L"))).float()[None] / 255 for image in rows["image"]]
    return {"x": images, "y": rows["label"]}


def small_net() -> nn.Module:
    """Return any classifier."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def accuracy(model: nn.Module, rows: Any) -> float:
    """Return the share of images that the bare model gets right."""
    model.eval()
    with torch.no_grad():
        right = [model(batch["x"]).argmax(1) == batch["y"] for batch in DataLoader(rows, batch_size=500)]
    return float(torch.cat(right).float().mean())


def main() -> None:
    """Train; save the bare model, load it again."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--out", type=Path, default=Path("runs/examples/huggingface_dataset"))
    args = options.parse_args()
    write_photos(args.out / "photos")
    # Any dataset of the hub has the same columns, most of them called image and label.
    photos = datasets.load_dataset("imagefolder", data_dir=str(args.out / "photos"), cache_dir=str(args.out / "cache"))
    photos = photos.with_transform(to_tensors)

    torch.manual_seed(0)
    model = small_net()
    distiller = SelfDistiller(model, SDDropout(weight=0.1))
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=3e-3)
    for epoch in range(args.epochs):
        for batch in DataLoader(photos["train"], batch_size=50, shuffle=True):
            loss, _, terms = distiller(batch["x"], batch["y"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}:", ", ".join(f"{name} {value:.4f}" for name, value in terms.items()))
    distiller.release()
    print(f"train accuracy {accuracy(model, photos['train']):.3f}, test accuracy {accuracy(model, photos['test']):.3f}")

    file = args.out / "model.pt"
    torch.save(model.state_dict(), file)
    fresh = small_net()
    fresh.load_state_dict(torch.load(file))
    print(f"the bare model, loaded from {file}: test accuracy {accuracy(fresh, photos['test']):.3f}")


if __name__ == "__main__":
    main()
