"""Fine-tune a pretrained timm model: earlier layers at lower rates, a warm-up, and SD-Dropout as the loss.

python examples/timm_pretrained.py --model resnet18.a1_in1k
"""

import argparse
from pathlib import Path
from typing import Any

import timm
import torch
from sklearn.datasets import load_digits
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from selfdistill import SDDropout, SelfDistiller


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of images that the bare model gets right."""
    with torch.no_grad():
        return float((model.eval()(x).argmax(1) == y).float().mean())


def main() -> None:
    """Fine-tune; save the bare model, load it again."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="test_resnet.r160_in1k")
    options.add_argument("--weights", type=Path, help="a file of pretrained weights, instead of timm's")
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--out", type=Path, default=Path("runs/examples/timm_pretrained.pt"))
    args = options.parse_args()
    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    x = nn.functional.interpolate(x, size=32, mode="bilinear")
    loader = DataLoader(TensorDataset(x[:1000], y[:1000]), batch_size=50, shuffle=True)

    torch.manual_seed(0)
    own: dict[str, Any] = {} if args.weights is None else {"pretrained_cfg_overlay": {"file": str(args.weights)}}
    # A new head for 10 classes; the first layer's three channels are summed into one. No dropout of the model's own.
    model = timm.create_model(args.model, pretrained=True, in_chans=1, num_classes=10, drop_rate=0.0, **own)
    distiller = SelfDistiller(model, SDDropout(weight=0.1))
    optimizer = create_optimizer_v2(model, opt="adamw", lr=3e-3, weight_decay=0.05, layer_decay=0.8)
    steps = args.epochs * len(loader)
    schedule = CosineLRScheduler(optimizer, t_initial=steps, warmup_t=steps // 10, t_in_epochs=False)
    for epoch in range(args.epochs):
        distiller.train()
        for step, (images, labels) in enumerate(loader):
            schedule.step_update(epoch * len(loader) + step)
            loss, _, terms = distiller(images, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}:", ", ".join(f"{name} {value:.4f}" for name, value in terms.items()))
    distiller.release()
    train_accuracy, test_accuracy = accuracy(model, x[:1000], y[:1000]), accuracy(model, x[1000:], y[1000:])
    print(f"train accuracy {train_accuracy:.3f}, test accuracy {test_accuracy:.3f}")

    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out)
    fresh = timm.create_model(args.model, in_chans=1, num_classes=10)
    fresh.load_state_dict(torch.load(args.out))
    print(f"the bare model, loaded from {args.out}: test accuracy {accuracy(fresh, x[1000:], y[1000:]):.3f}")


if __name__ == "__main__":
    main()
