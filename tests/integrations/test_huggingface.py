import copy
import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from safetensors.torch import load_file
from torch import Tensor, nn

from selfdistill import CSKD, DML, CrossEntropy, SDDropout, SelfDistiller
from tests import nets
from tests.branch import Branch

CLASSES = 3
SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
Row = dict[str, Any]


@pytest.fixture(name="integration", scope="module")
def _integration() -> Any:
    """Imported on use: it takes seconds."""
    from selfdistill.integrations import huggingface

    return huggingface


@pytest.fixture(name="make")
def _make(integration: Any, tmp_path: Path) -> Any:
    def make(distiller: SelfDistiller, rows: list[Row], options: dict[str, Any] | None = None, **arguments: Any) -> Any:
        given = {
            "per_device_train_batch_size": 4,
            "num_train_epochs": 1,
            "optim": "sgd",
            "learning_rate": 0.1,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "logging_steps": 100,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            "label_names": ["labels"],
            "dataloader_pin_memory": False,
        }
        args = hf.TrainingArguments(str(tmp_path / "out"), **(given | (options or {})))
        return integration.DistillerTrainer(distiller, args, train_dataset=rows, **arguments)

    return make


def vit() -> nn.Module:
    return hf.ViTForImageClassification(hf.ViTConfig(image_size=8, patch_size=4, num_labels=CLASSES, **SMALL))


def bert() -> nn.Module:
    config = hf.BertConfig(vocab_size=20, num_labels=CLASSES, classifier_dropout=0.0, **SMALL)
    return hf.BertForSequenceClassification(config)


def images(count: int = 10) -> list[Row]:
    return [{"pixel_values": torch.randn(3, 8, 8), "labels": i % CLASSES} for i in range(count)]


def texts(count: int = 10) -> list[Row]:
    mask = [1, 1, 1, 1, 0, 0]
    return [
        {"input_ids": torch.randint(1, 20, (6,)), "attention_mask": torch.tensor(mask), "labels": i % CLASSES}
        for i in range(count)
    ]


def joined(rows: list[Row]) -> tuple[dict[str, Tensor], Tensor]:
    batch = hf.default_data_collator(rows)
    return batch, batch.pop("labels")


def last_log(trainer: Any) -> Row:
    return next(row for row in reversed(trainer.state.log_history) if "loss" in row)


@pytest.mark.parametrize(("model", "rows"), [(vit, images), (bert, texts)])
def test_terms_are_logged_by_name(model: Any, rows: Any, make: Any) -> None:
    torch.manual_seed(0)
    distiller = SelfDistiller(model(), SDDropout(weight=0.1))
    trainer = make(distiller, rows(8), {"logging_steps": 1})
    trainer.train()
    assert len(trainer.state.log_history) == 3  # two steps and the summary
    for row in trainer.state.log_history[:2]:
        # Older Trainers round the loss to four digits.
        assert row["loss"] == pytest.approx(row["ce"] + 0.1 * 9 * row["sdd"], rel=1e-5, abs=6e-5)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_terms_are_means_over_the_images_since_the_last_log(accumulate: int, make: Any) -> None:
    model, rows = vit(), images(10)  # batches of 4, 4 and 2
    options = {"learning_rate": 0.0, "gradient_accumulation_steps": accumulate, "logging_steps": 3 // accumulate}
    trainer = make(SelfDistiller(model, CrossEntropy()), rows, options | {"num_train_epochs": 2})
    trainer.train()
    x, y = joined(rows)
    expected = F.cross_entropy(model.eval()(**x).logits, y).item()
    logged = [row["ce"] for row in trainer.state.log_history if "ce" in row]
    assert logged == pytest.approx([expected, expected], rel=1e-5)


@pytest.mark.parametrize("model", [vit, nets.MappingNet])
def test_accumulated_passes_are_one_mean_over_their_images(model: Any, make: Any) -> None:
    """Also for a model whose ``forward`` takes no further arguments."""
    rows = images(10)
    if model is nets.MappingNet:
        rows = [row | {"brightness": torch.tensor(1.0 + i / 10)} for i, row in enumerate(rows)]
    ours, plain = SelfDistiller(model(), CrossEntropy()), model()
    plain.load_state_dict(ours.model.state_dict())
    trainer = make(ours, rows, {"gradient_accumulation_steps": 3})
    trainer.train()
    x, y = joined(rows)
    loss = F.cross_entropy(plain.train()(**x)["logits"], y)
    loss.backward()
    assert trainer.state.log_history[-1]["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    for (name, trained), parameter in zip(ours.model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(trained, parameter - 0.1 * parameter.grad, msg=name)


def test_the_methods_own_parameters_are_trained_and_stay_out_of_the_model(make: Any) -> None:
    rows = images()
    model, peer = vit(), vit()
    keys = list(model.state_dict())
    for method, decayed in ((Branch(), ["linear.weight"]), (DML(peer=peer), None)):
        x, _ = joined(rows)
        distiller = SelfDistiller(model, method, example_input=x)
        before = {name: value.clone() for name, value in method.named_parameters() if "key.bias" not in name}
        trainer = make(distiller, rows, {"weight_decay": 0.01})
        trainer.train()
        for name, value in before.items():
            assert not torch.equal(method.get_parameter(name), value), name
        groups = trainer.optimizer.param_groups
        grouped = [parameter for group in groups for parameter in group["params"]]
        assert len(grouped) == len({id(parameter) for parameter in grouped}) == len(list(distiller.parameters()))
        if decayed is not None:
            assert [group["weight_decay"] for group in groups] == [0.01, 0.0, 0.01, 0.0]
            assert groups[2]["params"] == [method.linear.weight]
        assert list(distiller.release().state_dict()) == keys


def test_an_optimiser_that_leaves_them_out_is_refused(make: Any) -> None:
    rows = images()
    distiller = SelfDistiller(vit(), Branch(), example_input=joined(rows)[0])
    bare = torch.optim.SGD(distiller.model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"optimizers= leaves out parameters of Branch\(\)"):
        make(distiller, rows, optimizers=(bare, None)).train()
    whole = torch.optim.SGD(distiller.parameters(), lr=0.1)
    make(distiller, rows, optimizers=(whole, None)).train()


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_checkpoint_is_the_bare_model(kind: str, make: Any, tmp_path: Path) -> None:
    model, rows = (vit(), images()) if kind == "image" else (bert(), texts())
    x, _ = joined(rows)
    distiller = SelfDistiller(model, Branch(), example_input=x)
    trainer = make(distiller, rows, {"save_strategy": "epoch"})
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    auto = hf.AutoModelForImageClassification if kind == "image" else hf.AutoModelForSequenceClassification
    expected = model.eval()(**x).logits
    type(model)(model.config).save_pretrained(tmp_path / "plain")
    keys = set(load_file(tmp_path / "plain" / "model.safetensors"))
    for folder in (tmp_path / "out" / "checkpoint-3", tmp_path / "final"):
        assert set(load_file(folder / "model.safetensors")) == keys
        torch.testing.assert_close(auto.from_pretrained(folder).eval()(**x).logits, expected)
    assert (tmp_path / "out" / "checkpoint-3" / "method.pt").is_file()
    assert not (tmp_path / "final" / "method.pt").exists()


def test_a_resumed_training_ends_where_a_whole_one_does(make: Any, tmp_path: Path) -> None:
    rows = images()
    start = SelfDistiller(vit(), Branch(), example_input=joined(rows)[0])
    whole, second = copy.deepcopy(start), SelfDistiller(vit(), Branch(), example_input=joined(rows)[0])
    options = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch"}
    make(whole, rows, options).train()
    assert whole.method.seen == 20
    checkpoint = tmp_path / "out" / "checkpoint-2"
    make(second, rows, options).train(resume_from_checkpoint=str(checkpoint))
    assert second.method.seen == 20
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, msg=name)

    (checkpoint / "method.pt").unlink()
    with pytest.raises(ValueError, match=r"checkpoint-2 holds no method.pt to resume Branch\(\) from"):
        make(second, rows, options).train(resume_from_checkpoint=str(checkpoint))


def test_evaluation_is_of_the_bare_model(make: Any) -> None:
    rows = images()
    distiller = SelfDistiller(vit(), Branch(), example_input=joined(rows)[0])

    def metrics(prediction: Any) -> dict[str, float]:
        assert prediction.predictions.shape == (10, CLASSES)
        return {"accuracy": float(np.mean(prediction.predictions.argmax(1) == prediction.label_ids))}

    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    options |= {"num_train_epochs": 2, "per_device_eval_batch_size": 4, "learning_rate": 2.0}
    trainer = make(distiller, rows, options, eval_dataset=rows, compute_metrics=metrics)
    first = trainer.evaluate()
    x, y = joined(rows)
    clean = F.cross_entropy(distiller.model(**x).logits, y)
    assert first["eval_loss"] == pytest.approx(clean.item(), rel=1e-5)
    trainer.train()
    assert distiller.method.seen == 20  # no image of an evaluation
    best = min((row for row in trainer.state.log_history if "eval_loss" in row), key=lambda row: row["eval_loss"])
    last = trainer.evaluate()
    assert last["eval_loss"] == pytest.approx(best["eval_loss"], rel=1e-5)
    logits = distiller.model.eval()(**x).logits
    assert last["eval_loss"] == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-5)
    assert last["eval_accuracy"] == pytest.approx((logits.argmax(1) == y).float().mean().item())
    assert trainer.predict([{"pixel_values": rows[0]["pixel_values"]}]).predictions.shape == (1, CLASSES)


def test_progress(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[float, float]] = []
    monkeypatch.setattr(SelfDistiller, "set_progress", lambda self, done, epoch_end: said.append((done, epoch_end)))
    options = {"num_train_epochs": 2, "gradient_accumulation_steps": 2}
    make(SelfDistiller(vit(), CrossEntropy()), images(), options).train()
    assert said == [(0, 0.5), (0, 0.5), (0.25, 0.5), (0.5, 1), (0.5, 1), (0.75, 1)]


def test_partners_come_with_the_batch(make: Any) -> None:
    rows = [row | {"pair": other} for row, other in zip(images(), images(), strict=True)]

    def collate(rows: list[Row]) -> Row:
        partners = hf.default_data_collator([row.pop("pair") for row in rows])
        return {**hf.default_data_collator(rows), "pair": partners}

    trainer = make(SelfDistiller(vit(), CSKD()), rows, {"logging_steps": 1}, data_collator=collate)
    trainer.train()
    assert {"ce", "cskd"} <= set(last_log(trainer))


def test_probabilities_as_labels(make: Any) -> None:
    rows = [row | {"labels": torch.eye(CLASSES)[row["labels"]]} for row in images()]
    ours, indices = SelfDistiller(vit(), CrossEntropy()), vit()
    indices.load_state_dict(ours.model.state_dict())
    make(ours, rows, {"gradient_accumulation_steps": 3}).train()
    assert ours.model.config.problem_type is None
    rows = [row | {"labels": int(row["labels"].argmax())} for row in rows]
    make(SelfDistiller(indices, CrossEntropy()), rows, {"gradient_accumulation_steps": 3}).train()
    torch.testing.assert_close(ours.model.state_dict(), indices.state_dict())


def test_bfloat16(make: Any) -> None:
    rows = images()
    trainer = make(SelfDistiller(vit(), SDDropout()), rows, {"bf16": True, "logging_steps": 1}, eval_dataset=rows)
    trainer.train()
    assert np.isfinite(last_log(trainer)["sdd"])
    predicted = torch.tensor(trainer.predict(rows).predictions)
    assert torch.equal(predicted, predicted.bfloat16().float())  # evaluated in the training's precision


def test_what_would_not_train_as_it_says_is_refused(
    make: Any, integration: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"add LabelSmoothing\(\)"):
        make(SelfDistiller(vit(), CrossEntropy()), images(), {"label_smoothing_factor": 0.1})
    several = vit()
    several.config.problem_type = "multi_label_classification"
    with pytest.raises(ValueError, match="problem_type is 'multi_label_classification'"):
        make(SelfDistiller(several, CrossEntropy()), images())
    monkeypatch.setattr(hf.TrainingArguments, "n_gpu", 2)
    with pytest.raises(ValueError, match="trains on one GPU; start it with torchrun"):
        make(SelfDistiller(vit(), CrossEntropy()), images())


def test_the_example_in_the_docstring(integration: Any) -> None:
    assert doctest.testmod(integration).attempted > 0
    assert doctest.testmod(integration).failed == 0
