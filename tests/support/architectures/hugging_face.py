"""Models of Hugging Face's transformers, small and not downloaded."""

from __future__ import annotations

import torch
import transformers
from torch import nn

from tests.support.architectures.architecture import Factory, Made, seeded


def _tokens(vocabulary: int) -> dict[str, torch.Tensor]:
    """Ids, and a mask that hides the last of the second example."""
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[1, -2:] = 0
    return {"input_ids": torch.randint(1, vocabulary, (2, 6)), "attention_mask": mask}


def bert(attention: str) -> Made:
    """BERT for classification (Devlin et al. 2019)."""
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=8, num_labels=3, attn_implementation=attention,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config), _tokens(30)


def gpt2(attention: str) -> Made:
    """GPT-2 with its language-model head, tied to the embedding (Radford et al. 2019)."""
    config = transformers.GPT2Config(
        vocab_size=30, n_positions=8, n_embd=16, n_layer=2, n_head=4, n_inner=24, use_cache=False,
        bos_token_id=0, eos_token_id=0, attn_implementation=attention,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config), _tokens(30)


def llama(attention: str) -> Made:
    """Llama: RMSNorm, rotary positions, grouped heads, SwiGLU (Touvron et al. 2023)."""
    config = transformers.LlamaConfig(
        vocab_size=30, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=8, use_cache=False, attn_implementation=attention,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config), _tokens(30)


def vit(attention: str) -> Made:
    """A vision transformer (Dosovitskiy et al. 2021)."""
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, image_size=8, patch_size=4,
        num_labels=3, attn_implementation=attention,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config), {"pixel_values": torch.randn(2, 3, 8, 8)}


def _resnet(layer: str) -> nn.Module:
    config = transformers.ResNetConfig(
        embedding_size=6, hidden_sizes=[8, 12], depths=[1, 2], layer_type=layer, num_labels=3
    )
    return transformers.ResNetForImageClassification(config)


def _images() -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(2, 3, 16, 16)}


@seeded
def hf_resnet_basic() -> Made:
    """ResNet with basic blocks."""
    return _resnet("basic"), _images()


@seeded
def hf_resnet_bottleneck() -> Made:
    """ResNet with bottlenecks."""
    return _resnet("bottleneck"), _images()


@seeded
def hf_mobilenet_v2() -> Made:
    """MobileNetV2 (Sandler et al. 2018), which pads by the size of its input."""
    config = transformers.MobileNetV2Config(
        image_size=32, depth_multiplier=0.25, min_depth=4, depth_divisible_by=4, num_labels=3
    )
    network = transformers.MobileNetV2ForImageClassification(config)
    return network, {"pixel_values": torch.randn(2, 3, 32, 32)}


def _with_attention(make: object, name: str, attention: str) -> Factory:
    def made() -> Made:
        return make(attention)  # type: ignore[operator, no-any-return]

    made.__name__ = f"hf_{name}_{attention}"
    return seeded(made)


TRANSFORMERS: list[Factory] = [
    _with_attention(make, make.__name__, attention)
    for make in (bert, gpt2, llama, vit)
    for attention in ("eager", "sdpa")
]
