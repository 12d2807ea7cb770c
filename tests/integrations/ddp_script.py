"""Train one step on eight images with an integration, in each process of torchrun; rank 0 writes what came out."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from selfdistill import SelfDistiller
from tests import nets
from tests.branch import Branch

ROWS = 8


def start() -> tuple[SelfDistiller, dict[str, Tensor], Tensor]:
    torch.manual_seed(0)
    x, y = nets.batch("mapping", ROWS)
    distiller = SelfDistiller(nets.MappingNet(), Branch(), example_input=x)
    distiller.set_progress(0.0)
    return distiller, x, y


def with_huggingface(distiller: SelfDistiller, rows: list[dict[str, Any]], out: Path) -> dict[str, float]:
    from transformers import TrainingArguments

    from selfdistill.integrations.huggingface import DistillerTrainer

    args = TrainingArguments(
        str(out),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        num_train_epochs=1,
        optim="sgd",
        learning_rate=0.1,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        logging_steps=1,
        save_strategy="epoch",
        label_names=["labels"],
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = DistillerTrainer(distiller, args, train_dataset=rows)
    trainer.train()
    logged = trainer.state.log_history[0]
    torch.distributed.barrier()  # until rank 0 has saved
    distiller.method.seen = torch.zeros(())
    DistillerTrainer(distiller, args, train_dataset=rows).train(resume_from_checkpoint=str(out / "checkpoint-1"))
    return {name: logged[name] for name in ("loss", "ce", "branch")}


def with_lightning(distiller: SelfDistiller, rows: list[dict[str, Any]], out: Path) -> dict[str, float]:
    from selfdistill.integrations.lightning import DistillerModule, pl

    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_progress_bar=False
    )
    module = DistillerModule(distiller, lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    trainer.fit(module, DataLoader(rows, batch_size=4))
    return {name: float(trainer.callback_metrics[f"train/{name}"]) for name in ("loss", "ce", "branch")}


if __name__ == "__main__":
    distiller, x, y = start()
    rows = [{**{name: value[i] for name, value in x.items()}, "labels": y[i]} for i in range(ROWS)]
    out = Path(sys.argv[2])
    logged = {"huggingface": with_huggingface, "lightning": with_lightning}[sys.argv[1]](distiller, rows, out)
    assert distiller.method.seen == ROWS / 2  # of this process alone
    if os.environ["RANK"] == "0":
        torch.save({"state": distiller.state_dict(), "logged": logged}, out / "result.pt")
