"""Evaluate any module on tensors of your own: accuracy, calibration, attacks, selective prediction, and a report.

python examples/evaluate_any_module.py
"""

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

from selfdistill.data import ImageData, Split
from selfdistill.evaluation.suite import evaluate
from selfdistill.report import digest, markdown, write_evaluation_report


def small_net() -> nn.Module:
    """Return any classifier: images (N, 3, H, W) to logits (N, C)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 128), nn.ReLU(), nn.Linear(128, 10))


def main() -> None:
    """Train a network in no special way; evaluate it, and again after it was saved and loaded."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--out", type=Path, default=Path("runs/examples/evaluate_any_module"))
    args = options.parse_args()
    digits = load_digits()
    pixels = torch.tensor(digits.images * 15).to(torch.uint8)[:, None].repeat(1, 3, 1, 1)  # (N, 3, H, W)
    labels = torch.tensor(digits.target)
    data = ImageData(
        name="my digits",
        train=Split(labels[:1000], images=pixels[:1000]),
        test=Split(labels[1000:], images=pixels[1000:]),
        classes=tuple("0123456789"),
        mean=(0.3, 0.3, 0.3),  # what your network expects: (pixels / 255 - mean) / std
        std=(0.35, 0.35, 0.35),
        image_size=8,
        augment="none",
        test_split_description="the last 797",
        skipped=(),
    )

    torch.manual_seed(0)
    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    x = (pixels[:1000] / 255 - 0.3) / 0.35
    for _ in range(args.epochs):
        for batch in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), labels[batch]).backward()
            optimizer.step()

    found = evaluate(model, data, device="cpu", measures=["robustness"], max_images=200)
    print(markdown(digest(found)))
    print("report:", write_evaluation_report("my network", found, args.out, title="My network", facts=()))
    print(f"train accuracy {found.train_top1:.3f}, test accuracy {found.top1:.3f}")

    file = args.out / "model.pt"
    torch.save(model.state_dict(), file)
    fresh = small_net()
    fresh.load_state_dict(torch.load(file))
    print(f"the bare model, loaded from {file}: test accuracy {evaluate(fresh, data, device='cpu').top1:.3f}")


if __name__ == "__main__":
    main()
