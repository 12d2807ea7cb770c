"""Search a method's settings with Optuna, on validation images; the test images are looked at once, at the end.

python examples/optuna_search.py
"""

import argparse
from pathlib import Path

import optuna
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from selfdistill import Method, SDDropout, SelfDistiller, parse_method


def small_net() -> nn.Module:
    """Return any classifier."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def train(method: Method, x: Tensor, y: Tensor, epochs: int) -> nn.Module:
    """Return a network trained with a method."""
    torch.manual_seed(0)
    distiller = SelfDistiller(small_net(), method)
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            distiller(x[batch], y[batch]).loss.backward()
            optimizer.step()
    return distiller.release().eval()


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of images that the bare model gets right."""
    with torch.no_grad():
        return float((model.eval()(x).argmax(1) == y).float().mean())


def main() -> None:
    """Search; train once more on all but the test images; save the bare model, load it again."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--trials", type=int, default=8)
    options.add_argument("--out", type=Path, default=Path("runs/examples/optuna_search.pt"))
    args = options.parse_args()
    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)

    def objective(trial: optuna.Trial) -> float:
        """Return the loss on validation images: unlike accuracy it tells close settings apart."""
        weight, p = trial.suggest_float("weight", 0.01, 1, log=True), trial.suggest_float("p", 0.1, 0.7)
        method = SDDropout(p=p, weight=weight)
        trial.set_user_attr("method", repr(method))
        model = train(method, x[:700], y[:700], args.epochs)
        with torch.no_grad():
            return float(nn.functional.cross_entropy(model(x[700:1000]), y[700:1000]))

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=args.trials)
    best = parse_method(study.best_trial.user_attrs["method"])  # a method's repr is the expression that makes it
    print(f"{best!r}: validation loss {study.best_value:.3f}")

    model = train(best, x[:1000], y[:1000], args.epochs)
    train_accuracy, test_accuracy = accuracy(model, x[:1000], y[:1000]), accuracy(model, x[1000:], y[1000:])
    print(f"train accuracy {train_accuracy:.3f}, test accuracy {test_accuracy:.3f}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out)
    fresh = small_net()
    fresh.load_state_dict(torch.load(args.out))
    print(f"the bare model, loaded from {args.out}: test accuracy {accuracy(fresh, x[1000:], y[1000:]):.3f}")


if __name__ == "__main__":
    main()
