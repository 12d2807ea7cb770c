"""Hugging Face's Trainer with a text classifier: sentences of a toy language, words as tokens, a small BERT.

python examples/huggingface_text.py
"""

import argparse
import random
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from torch import nn

from selfdistill import SDDropout, SelfDistiller
from selfdistill.integrations.huggingface import DistillerTrainer

TOPICS = ["rain cloud wind storm sunny cold", "bread soup oven taste salt cook", "ball goal team race win coach"]
FILLER = "the a we they very today often some little much was had and then again"
WORDS = ["[PAD]", *f"{FILLER} {' '.join(TOPICS)}".split()]
Row = dict[str, Any]


def sentence(topic: int, draw: random.Random) -> Row:
    """Return a sentence with two words of its topic and one of any."""
    words = [*draw.choices(TOPICS[topic].split(), k=2), draw.choice(draw.choice(TOPICS).split())]
    words += draw.choices(FILLER.split(), k=draw.randint(2, 5))
    draw.shuffle(words)
    return {"input_ids": [WORDS.index(word) for word in words], "labels": topic}


def collate(rows: list[Row]) -> dict[str, torch.Tensor]:
    """Pad the sentences to the longest of the batch."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row["input_ids"]) for row in rows], batch_first=True)
    labels = torch.tensor([row["labels"] for row in rows])
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


def small_bert() -> nn.Module:
    """Return a BERT with weights drawn at random; its own dropout before the head is off: SD-Dropout drops there."""
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 64, "vocab_size": len(WORDS), "num_labels": len(TOPICS)}
    return hf.BertForSequenceClassification(hf.BertConfig(classifier_dropout=0.0, **sizes))


def accuracy(model: nn.Module, rows: list[Row]) -> float:
    """Return the share of sentences that the bare model gets right."""
    batch = collate(rows)
    labels = batch.pop("labels")
    with torch.no_grad():
        return float((model.cpu().eval()(**batch).logits.argmax(1) == labels).float().mean())


def main() -> None:
    """Train; load the saved model as any other of the hub."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--out", type=Path, default=Path("runs/examples/huggingface_text"))
    args = options.parse_args()
    draw = random.Random(0)
    rows = [sentence(number % len(TOPICS), draw) for number in range(900)]
    train, test = rows[:600], rows[600:]

    torch.manual_seed(0)
    distiller = SelfDistiller(small_bert(), SDDropout(weight=0.1))
    training = hf.TrainingArguments(
        str(args.out),
        num_train_epochs=args.epochs,
        per_device_train_batch_size=30,
        learning_rate=3e-3,
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = DistillerTrainer(distiller, training, train_dataset=train, data_collator=collate)
    trainer.train()
    print(f"train accuracy {accuracy(distiller.model, train):.3f}, test accuracy {accuracy(distiller.model, test):.3f}")

    trainer.save_model(str(args.out))
    fresh = hf.AutoModelForSequenceClassification.from_pretrained(args.out)
    print(f"the bare model, loaded from {args.out}: test accuracy {accuracy(fresh, test):.3f}")


if __name__ == "__main__":
    main()
