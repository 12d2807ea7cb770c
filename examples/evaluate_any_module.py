"""Evaluate any module on images of your own: accuracy, calibration, attacks, selective prediction, and a report.

python examples/evaluate_any_module.py
"""

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

import selfdistill


def small_net() -> nn.Module:
    """Return any classifier: images (N, C, H, W), here grey ones, to logits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def main() -> None:
    """Train a network in no special way; evaluate it, and again after it was saved and loaded."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--out", type=Path, default=Path("runs/examples/evaluate_any_module"))
    args = options.parse_args()
    digits = load_digits()
    pixels = torch.tensor(digits.images * 15).to(torch.uint8)[:, None]  # (N, 1, H, W)
    labels = torch.tensor(digits.target)
    train, test = (pixels[:1000], labels[:1000]), (pixels[1000:], labels[1000:])

    torch.manual_seed(0)
    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    x = (pixels[:1000] / 255 - 0.3) / 0.35
    for _ in range(args.epochs):
        for batch in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), labels[batch]).backward()
            optimizer.step()

    mean, std = [0.3], [0.35]  # what the network expects: (pixels / 255 - mean) / std
    found = selfdistill.evaluate(model, test, mean=mean, std=std, max_images=200, out=args.out)
    print(found)
    print("report:", found.report)
    trained = selfdistill.evaluate(model, train, mean=mean, std=std, quick=True).evaluation.top1
    print(f"train accuracy {trained:.3f}, test accuracy {found.evaluation.top1:.3f}")

    file = args.out / "model.pt"
    torch.save(model.state_dict(), file)
    fresh = small_net()
    fresh.load_state_dict(torch.load(file))
    again = selfdistill.evaluate(fresh, test, mean=mean, std=std, quick=True)
    print(f"the bare model, loaded from {file}: test accuracy {again.evaluation.top1:.3f}")


if __name__ == "__main__":
    main()
