"""A loop over timm's training tasks; BYOT's branches are saved beside the model's weights, not among them.

python examples/timm_task.py
"""

import argparse
from pathlib import Path

import timm
import torch
from sklearn.datasets import load_digits
from timm.optim import create_optimizer_v2
from timm.task import resume_task_checkpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from selfdistill import BYOT, SDDropout, SelfDistiller
from selfdistill.integrations.timm import DistillerTask


def small_resnet() -> nn.Module:
    """Return a model by its name."""
    return timm.create_model("test_resnet", in_chans=1, num_classes=10)


def make_task(x: Tensor) -> DistillerTask:
    """Return a task; the example input sizes the branches."""
    return DistillerTask(SelfDistiller(small_resnet(), SDDropout(weight=0.1) + BYOT(), example_input=x))


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of images that the bare model gets right."""
    with torch.no_grad():
        return float((model.eval()(x).argmax(1) == y).float().mean())


def main() -> None:
    """Train; save a checkpoint of the task; load it into a new task and into a bare model."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--out", type=Path, default=Path("runs/examples/timm_task.pth.tar"))
    args = options.parse_args()
    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    x = nn.functional.interpolate(x, size=32, mode="bilinear")
    loader = DataLoader(TensorDataset(x[:1000], y[:1000]), batch_size=50, shuffle=True)

    torch.manual_seed(0)
    task = make_task(x[:1])
    trainable = task.get_trainable_module()
    assert trainable is not None
    optimizer = create_optimizer_v2(trainable, opt="adamw", lr=3e-3, weight_decay=0.05)
    for epoch in range(args.epochs):
        task.train()
        for step, (input, target) in enumerate(loader):
            done = (epoch + step / len(loader)) / args.epochs
            task.distiller.set_progress(done, epoch_end=(epoch + 1) / args.epochs)
            result = task(input, target)
            optimizer.zero_grad()
            result["loss"].backward()
            optimizer.step()
        terms = ", ".join(f"{name} {value:.4f}" for name, value in result.items() if name != "output")
        print(f"epoch {epoch + 1}: {terms}")
    model = task.get_eval_model()
    assert model is not None
    train_accuracy, test_accuracy = accuracy(model, x[:1000], y[:1000]), accuracy(model, x[1000:], y[1000:])
    print(f"train accuracy {train_accuracy:.3f}, test accuracy {test_accuracy:.3f}")

    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**task.get_checkpoint_state(), "optimizer": optimizer.state_dict(), "epoch": epoch}, args.out)
    resume_task_checkpoint(make_task(x[:1]), args.out)  # the branches too
    fresh = small_resnet()
    fresh.load_state_dict(torch.load(args.out)["state_dict"])
    print(f"the bare model, loaded from {args.out}: test accuracy {accuracy(fresh, x[1000:], y[1000:]):.3f}")


if __name__ == "__main__":
    main()
