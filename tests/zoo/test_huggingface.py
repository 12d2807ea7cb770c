"""Hugging Face classifiers from small configurations, with mapping inputs and the labels apart."""

from collections.abc import Callable

import pytest
import torch
import transformers as hf
from torch import nn

from selfdistill import SDDropout, SelfDistiller

TRANSFORMER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
VISION = {**TRANSFORMER, "image_size": 32, "patch_size": 8}
TEXT = {**TRANSFORMER, "vocab_size": 100, "max_position_embeddings": 40, "pad_token_id": 1}
CONVOLUTIONAL = {"hidden_sizes": [16, 32], "depths": [1, 1]}
STAGED = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "image_size": 32}

IMAGE = {
    "ViT": VISION,
    "DeiT": VISION,
    "Beit": VISION,
    "Dinov2": VISION,
    "ResNet": {**CONVOLUTIONAL, "embedding_size": 16, "layer_type": "basic"},
    "RegNet": {**CONVOLUTIONAL, "embedding_size": 16, "groups_width": 16},
    "ConvNext": {**CONVOLUTIONAL, "num_stages": 2},
    "ConvNextV2": {**CONVOLUTIONAL, "num_stages": 2},
    "Swin": STAGED,
    "Swinv2": STAGED,
    "MobileNetV2": {"depth_multiplier": 0.35},
}
TEXTS = {
    "Bert": TEXT,
    "Roberta": TEXT,
    "Electra": {**TEXT, "embedding_size": 32},
    "Albert": {**TEXT, "embedding_size": 32},
    "DebertaV2": TEXT,
    "DistilBert": {
        "dim": 32,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 64,
        "vocab_size": 100,
        "max_position_embeddings": 40,
    },
}


def make(family: str, task: str, options: dict[str, object]) -> nn.Module:
    config = getattr(hf, f"{family}Config")(num_labels=5, **options)
    return getattr(hf, f"{family}For{task}")(config)


def tokens() -> dict[str, torch.Tensor]:
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[1, 8:] = 0
    return {"input_ids": torch.randint(2, 100, (2, 12)).masked_fill(mask == 0, 1), "attention_mask": mask}


@pytest.mark.parametrize("family", IMAGE)
def test_image_classifiers(family: str, check_model: Callable[..., str]) -> None:
    model = make(family, "ImageClassification", IMAGE[family])
    size = 64 if family in ("ResNet", "RegNet", "MobileNetV2") else 32
    found = check_model(model, {"pixel_values": torch.randn(2, 3, size, size)}, 5)
    assert isinstance(model.get_submodule(found), nn.Linear)


@pytest.mark.parametrize("family", TEXTS)
def test_text_classifiers(family: str, check_model: Callable[..., str]) -> None:
    model = make(family, "SequenceClassification", TEXTS[family])
    found = check_model(model, tokens(), 5)
    assert isinstance(model.get_submodule(found), nn.Linear)


def test_pooling_after_the_classifier_is_refused() -> None:
    # GPT-2 classifies every token and then keeps the last one's logits.
    options = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 100, "pad_token_id": 1}
    with pytest.raises(ValueError, match="pass head=, the dotted name"):
        SelfDistiller(make("GPT2", "SequenceClassification", options), SDDropout(), example_input=tokens())
