"""Hugging Face's Trainer with an image classifier; the checkpoint is the bare model, as ``from_pretrained`` reads it.

python examples/huggingface_images.py
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import AutoModelForImageClassification, ResNetConfig, ResNetForImageClassification, TrainingArguments

from selfdistill import SDDropout, SelfDistiller
from selfdistill.integrations.huggingface import DistillerTrainer


def small_resnet() -> nn.Module:
    """Return a ResNet with weights drawn at random; your own comes from ``from_pretrained``."""
    sizes: dict[str, Any] = {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [1, 1], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(num_channels=1, **sizes | {"num_labels": 10}))


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of images that the bare model gets right."""
    with torch.no_grad():
        return float((model.cpu().eval()(pixel_values=x).logits.argmax(1) == y).float().mean())


def main() -> None:
    """Train; load the checkpoint as any other model of the hub."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--out", type=Path, default=Path("runs/examples/huggingface_images"))
    args = options.parse_args()
    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    x = nn.functional.interpolate(x, size=32, mode="bilinear")
    rows = [{"pixel_values": image, "labels": int(label)} for image, label in zip(x, y, strict=True)]

    torch.manual_seed(0)
    distiller = SelfDistiller(small_resnet(), SDDropout(weight=0.1))
    training = TrainingArguments(
        str(args.out),
        num_train_epochs=args.epochs,
        per_device_train_batch_size=50,
        learning_rate=5e-3,
        logging_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = DistillerTrainer(distiller, training, train_dataset=rows[:1000], eval_dataset=rows[1000:])
    trainer.train()
    print("clean cross-entropy on the test images:", round(trainer.evaluate()["eval_loss"], 4))
    model = distiller.release()
    train_accuracy, test_accuracy = accuracy(model, x[:1000], y[:1000]), accuracy(model, x[1000:], y[1000:])
    print(f"train accuracy {train_accuracy:.3f}, test accuracy {test_accuracy:.3f}")

    checkpoint = args.out / f"checkpoint-{trainer.state.global_step}"
    fresh = AutoModelForImageClassification.from_pretrained(checkpoint)
    print(f"the bare model, loaded from {checkpoint}: test accuracy {accuracy(fresh, x[1000:], y[1000:]):.3f}")


if __name__ == "__main__":
    main()
