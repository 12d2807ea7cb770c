"""Lightning's Trainer: each term logged by name; the bare model comes out of any checkpoint.

python examples/lightning_trainer.py
"""

import argparse
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from selfdistill import LabelSmoothing, SDDropout, SelfDistiller
from selfdistill.integrations.lightning import DistillerModule, student_state_dict


def small_net() -> nn.Module:
    """Return any classifier."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of images that the bare model gets right."""
    with torch.no_grad():
        return float((model.eval()(x).argmax(1) == y).float().mean())


def main() -> None:
    """Train; take the bare model out of the checkpoint."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--out", type=Path, default=Path("runs/examples/lightning_trainer"))
    args = options.parse_args()
    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=torch.float32) / 16, torch.tensor(digits.target)
    train, test = TensorDataset(x[:1000], y[:1000]), TensorDataset(x[1000:], y[1000:])

    pl.seed_everything(0)
    distiller = SelfDistiller(small_net(), SDDropout(weight=0.1) + LabelSmoothing())
    module = DistillerModule(distiller, lambda parameters: torch.optim.AdamW(parameters, lr=2e-3))
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        default_root_dir=args.out,
        logger=CSVLogger(args.out),
        log_every_n_steps=20,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(train, batch_size=50, shuffle=True), DataLoader(test, batch_size=500))
    print("logged:", ", ".join(f"{name} {value:.4f}" for name, value in sorted(trainer.callback_metrics.items())))
    model = distiller.release().cpu()
    train_accuracy, test_accuracy = accuracy(model, x[:1000], y[:1000]), accuracy(model, x[1000:], y[1000:])
    print(f"train accuracy {train_accuracy:.3f}, test accuracy {test_accuracy:.3f}")

    assert isinstance(trainer.checkpoint_callback, ModelCheckpoint)
    checkpoint = trainer.checkpoint_callback.best_model_path
    fresh = small_net()
    fresh.load_state_dict(student_state_dict(checkpoint))
    print(f"the bare model, loaded from {checkpoint}: test accuracy {accuracy(fresh, x[1000:], y[1000:]):.3f}")


if __name__ == "__main__":
    main()
