"""A loop of your own over a DataLoader of your own; and CS-KD, which wants a partner of the same class for each image.

python examples/plain_loop.py
"""

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from selfdistill import CSKD, Method, SDDropout, SelfDistiller


class WithPartner(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Each image with its label and a random image of the same class."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels
        self.of_class = {int(label): (labels == label).nonzero().flatten() for label in labels.unique()}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        same = self.of_class[int(self.labels[i])]
        partner = same[torch.randint(len(same), ())]
        return self.images[i], self.labels[i], self.images[partner]


def small_net() -> nn.Module:
    """Return any classifier: the last layer is its head, what that layer reads are the features."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(64, 10),
    )


def train(model: nn.Module, method: Method, loader: DataLoader[tuple[Tensor, Tensor, Tensor]], epochs: int) -> None:
    """Train ``model`` in place."""
    distiller = SelfDistiller(model, method)
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=3e-3)  # with the method's own parameters, if it has any
    for epoch in range(epochs):
        model.train()
        for step, (x, y, partner) in enumerate(loader):
            # Read by methods that change over the training; the others do not mind.
            distiller.set_progress((epoch + step / len(loader)) / epochs, epoch_end=(epoch + 1) / epochs)
            loss, _, terms = distiller(x, y, pair=partner if method.needs.pair else None)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}:", ", ".join(f"{name} {value:.4f}" for name, value in terms.items()))
    distiller.release()


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of images that the bare model gets right."""
    with torch.no_grad():
        return float((model.eval()(x).argmax(1) == y).float().mean())


def main() -> None:
    """Train with two methods; save the bare model, load it again."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--out", type=Path, default=Path("runs/examples/plain_loop.pt"))
    args = options.parse_args()
    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    loader = DataLoader(WithPartner(x[:1000], y[:1000]), batch_size=50, shuffle=True)
    for method in (SDDropout(weight=0.1), CSKD()):
        torch.manual_seed(0)
        model = small_net()
        train(model, method, loader, args.epochs)
        train_accuracy, test_accuracy = accuracy(model, x[:1000], y[:1000]), accuracy(model, x[1000:], y[1000:])
        print(f"{method!r}: train accuracy {train_accuracy:.3f}, test accuracy {test_accuracy:.3f}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out)
    fresh = small_net()
    fresh.load_state_dict(torch.load(args.out))
    print(f"the bare model, loaded from {args.out}: test accuracy {accuracy(fresh, x[1000:], y[1000:]):.3f}")


if __name__ == "__main__":
    main()
