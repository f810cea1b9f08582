"""Networks of Hugging Face's library, made very small of their configurations: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from tests.support.random_networks import randomise

Case = tuple[nn.Module, Any, list[str]]
"""A network, a batch of inputs, and the names of its outputs that are tensors."""

SIZES: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}


def tokens(count: int = 5) -> dict[str, Tensor]:
    """Sequences of six tokens, some of them padding."""
    ids = torch.randint(1, 30, (count, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[::2, 4:] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def images(*shape: int, count: int = 5) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def bert() -> Case:
    config = transformers.BertConfig(vocab_size=30, max_position_embeddings=8, num_labels=3, **SIZES)
    labels = torch.arange(5) % 3
    return transformers.BertForSequenceClassification(config), {**tokens(), "labels": labels}, ["loss", "logits"]


def bert_features() -> Case:
    config = transformers.BertConfig(vocab_size=30, max_position_embeddings=8, **SIZES)
    return transformers.BertModel(config), tokens()["input_ids"], ["last_hidden_state", "pooler_output"]


def gpt2() -> Case:
    """It also returns a cache of keys and values, which is no tensor."""
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = transformers.GPT2Config(vocab_size=30, n_positions=8, n_embd=8, n_layer=1, n_head=2, **special)
    return transformers.GPT2LMHeadModel(config), tokens(), ["logits"]


def vit() -> Case:
    config = transformers.ViTConfig(image_size=8, patch_size=4, num_labels=3, **SIZES)
    return transformers.ViTForImageClassification(config), {"pixel_values": images(3, 8, 8)}, ["logits"]


def resnet() -> Case:
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=3
    )
    return transformers.ResNetForImageClassification(config), images(3, 16, 16), ["logits"]


def mobilenet() -> Case:
    """The first blocks: all have eight channels, so the last layer fits them too."""
    config = transformers.MobileNetV2Config(image_size=16, depth_multiplier=0.01, num_labels=3)
    network = transformers.MobileNetV2ForImageClassification(config)
    network.mobilenet_v2.layer = network.mobilenet_v2.layer[:3]
    return network, images(3, 16, 16), ["logits"]


CASES: dict[str, Callable[[], Case]] = {
    each.__name__: each for each in (bert, bert_features, gpt2, vit, resnet, mobilenet)
}


def case(name: str) -> Case:
    """One of the `CASES`, in evaluation mode; always the same weights, batch norm as it might be after training."""
    torch.manual_seed(0)
    network, x, outputs = CASES[name]()
    return randomise(network).eval(), x, outputs
