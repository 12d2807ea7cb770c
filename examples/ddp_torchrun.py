"""Several processes with torchrun: wrap the distiller, not the model, in DistributedDataParallel.

torchrun --nproc-per-node 2 examples/ddp_torchrun.py
"""

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from selfdistill import DML, SDDropout, SelfDistiller


def small_net() -> nn.Module:
    """Return any classifier."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of images that the bare model gets right."""
    with torch.no_grad():
        return float((model.cpu().eval()(x).argmax(1) == y).float().mean())


def main() -> None:
    """Join the other processes, train, and leave."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--out", type=Path, default=Path("runs/examples/ddp_torchrun.pt"))
    args = options.parse_args()
    on_gpu = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    dist.init_process_group("nccl" if on_gpu else "gloo")
    train(args.epochs, args.out, on_gpu=on_gpu)
    dist.destroy_process_group()  # now that nothing uses it any more


def train(epochs: int, out: Path, *, on_gpu: bool) -> None:
    """Train in all processes; rank 0 saves and scores the bare model."""
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=torch.float32) / 16, torch.tensor(digits.target)
    known = TensorDataset(x[:1000], y[:1000])
    sampler: DistributedSampler[tuple[Tensor, ...]] = DistributedSampler(known)
    loader = DataLoader(known, batch_size=50 // dist.get_world_size(), sampler=sampler)

    torch.manual_seed(0)
    model = small_net().to(device)
    distiller = SelfDistiller(model, SDDropout(weight=0.1) + DML(peer=small_net()), example_input=x[:1].to(device))
    ddp = DistributedDataParallel(distiller, device_ids=[device] if on_gpu else None)
    optimizer = torch.optim.AdamW(ddp.parameters(), lr=2e-3)  # of the model and of DML's second network
    torch.manual_seed(dist.get_rank())  # each process draws its own masks
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        ddp.train()
        for step, (images, labels) in enumerate(loader):
            distiller.set_progress((epoch + step / len(loader)) / epochs, epoch_end=(epoch + 1) / epochs)
            loss, _, terms = ddp(images.to(device), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if dist.get_rank() == 0:
            print(f"epoch {epoch + 1}:", ", ".join(f"{name} {value:.4f}" for name, value in terms.items()))
    if dist.get_rank() == 0:
        distiller.release()
        train_accuracy, test_accuracy = accuracy(model, x[:1000], y[:1000]), accuracy(model, x[1000:], y[1000:])
        print(f"train accuracy {train_accuracy:.3f}, test accuracy {test_accuracy:.3f}")
        out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), out)
        fresh = small_net()
        fresh.load_state_dict(torch.load(out))
        print(f"the bare model, loaded from {out}: test accuracy {accuracy(fresh, x[1000:], y[1000:]):.3f}")


if __name__ == "__main__":
    main()
