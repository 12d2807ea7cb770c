"""Push a run to the Hugging Face hub: the weights, what describes them, and a model card with the measured numbers."""

import shutil
import tempfile
from pathlib import Path

from selfdistill.errors import ArgumentError
from selfdistill.records import METRICS, RunRecord, load_run_record
from selfdistill.text import first_line
from selfdistill.training.export import HUB_FILES, load_weights
from selfdistill.training.record import optimiser_steps

_SHOWN = ("top1", "nll", "ece", "gap")


def push_run(run: Path, name: str, *, private: bool = False) -> str:
    """Push the network of a run, so that ``load("hf-hub:NAME")`` and ``selfdistill predict hf-hub:NAME`` find it.

    What is pushed: ``model.safetensors``, ``model.json`` and a ``README.md`` with the numbers of the run and how they
    were measured. No image and no path of this machine goes along.

    Args:
        name: of the repository, ``user/name``; made if it is not there.

    Returns:
        Its address.

    Raises:
        ValueError: no finished run, or its weights are damaged.
        ArgumentError: not such a name.
        OSError: the hub refuses or is not reached, in one line.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ArgumentError("hub", f"must be a name such as user/photos: {first_line(error)}") from None
    record = load_run_record(run)
    load_weights(run)
    with tempfile.TemporaryDirectory() as folder:
        for file in HUB_FILES:
            shutil.copy(run / file, folder)
        (Path(folder) / "README.md").write_text(model_card(record, name), encoding="utf-8")
        try:
            api = HfApi()
            where = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=folder, commit_message=f"Add {record.method}")
        except Exception as error:  # each of the hub's transports has errors of its own
            raise OSError(f"cannot push to {name} ({first_line(error)}); sign in with hf auth login") from error
    return str(where)


def model_card(record: RunRecord, name: str) -> str:
    """Return the README of a run's repository, with the hub's header."""
    e, data, recipe = record.evaluation, record.data, record.recipe
    metrics = [(METRICS[metric], METRICS[metric].read(e)) for metric in _SHOWN]
    rows = "\n".join(f"| {one.title} | {value:.4f} |" for one, value in metrics if value is not None)
    fitted = "" if e.train_top1 is None else f" and on {e.train_top1:.1%} of the training images"
    start = "from scratch" if recipe.weights == "none" else "from pretrained weights"
    return f"""---
library_name: selfdistill
pipeline_tag: image-classification
tags: [image-classification, self-distillation]
---

# {name}

{recipe.model} trained {start} with `{record.method}` on {data.name}: {data.classes} classes,
{data.train_n:,} training images, {record.epochs} epochs ({optimiser_steps(record):,} optimiser steps),
seed {record.seed}.

Measured on {e.n:,} test images ({data.test_split_description}), {record.policy}.
It is right on {e.top1:.1%} of them{fitted}.
One network and one seed: how far another training would come out, these numbers do not tell.

| Metric | Value |
| :-- | --: |
{rows}

```python
import selfdistill

model = selfdistill.load("hf-hub:{name}")  # a bare torch.nn.Module; model.json says how images are prepared
```

```console
selfdistill predict hf-hub:{name} photos/
```

selfdistill {record.versions.get("selfdistill", "")}, torch {record.versions.get("torch", "")}, {record.date[:10]}.
"""
