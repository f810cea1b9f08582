"""Attention that is made of linear layers: of the zoo, and of Hugging Face's models."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.resized import close, indices, randomised, resized, values
from tombola.exports.resizing import Kept, resize
from tombola.utils.errors import InputError
from tombola.zoo.models.vit import Attention, EncoderBlock

HEADS, SIZE = 4, 2
WIDTH = HEADS * SIZE
SOME = indices(HEADS, 0, 2)
INNER = SOME.repeat_interleave(SIZE)
SMALL = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": 12}


def kept_of_linear(network: nn.Module, names: dict[str, tuple[Tensor | None, Tensor | None]]) -> Kept:
    """What stays of all linear layers whose names end like these: of their outputs, and of their inputs."""
    kept: dict[str, tuple[Tensor | None, ...]] = {}
    for path, module in network.named_modules():
        for suffix, (outs, ins) in names.items():
            if path.endswith(suffix) and (path == suffix or path.endswith(f".{suffix}")):
                kept[f"{path}.weight"] = (outs, ins) if isinstance(module, nn.Linear) else (ins, outs)
                if outs is not None and module.bias is not None:
                    kept[f"{path}.bias"] = (outs,)
    return kept


def masked(network: nn.Module, kept: Kept, readers: tuple[str, ...]) -> nn.Module:
    """Zeros for the columns of these layers that do not stay."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for name, axes in kept.items():
            if name.removesuffix(".weight").endswith(readers):
                tensor = network.get_parameter(name)
                for axis, index in enumerate(axes):
                    if index is not None:
                        tensor *= index.view([-1 if a == axis else 1 for a in range(tensor.dim())])
    return network


def test_the_attention_of_the_zoo() -> None:
    attention, x = randomised(Attention(WIDTH, HEADS)), values(2, 3, WIDTH)
    kept = kept_of_linear(attention, {"qkv": (INNER.repeat(3), None), "proj": (None, INNER)})
    smaller = resized(attention, kept)
    assert smaller.heads == 2
    close(smaller(x), masked(attention, kept, ("proj",))(x))


def test_a_block_of_the_zoo_without_heads_hidden_units_and_width() -> None:
    block, width, hidden = randomised(EncoderBlock(WIDTH, HEADS, 6)), indices(WIDTH, 1, 2, 6), indices(6, 5)
    names: dict[str, Any] = {
        "qkv": (INNER.repeat(3), width), "proj": (width, INNER), "fc1": (hidden, width), "fc2": (width, hidden)
    }  # fmt: skip
    kept = {**kept_of_linear(block, names)}
    kept |= {f"norm{i}.{name}": (width,) for i in (1, 2) for name in ("weight", "bias")}
    with torch.no_grad():
        for layer in (block.attention.proj, block.fc2, block.norm1, block.norm2):
            layer.weight *= width[:, None] if layer.weight.dim() == 2 else width
            layer.bias *= width
    smaller, x = resized(block, kept), values(2, 3, WIDTH) * width
    assert smaller.attention.heads == 2
    close(smaller(x[..., width]), masked(block, kept, ("proj", "fc2"))(x)[..., width])


def bert() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(vocab_size=20, max_position_embeddings=8, **SMALL)), ids()


def vit() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import ViTConfig, ViTModel

    return ViTModel(ViTConfig(image_size=4, patch_size=2, **SMALL)), {"pixel_values": values(2, 3, 4, 4)}


def gpt2() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(n_embd=WIDTH, n_head=HEADS, n_layer=2, n_positions=8, vocab_size=20, add_cross_attention=True)
    return GPT2Model(config), ids() | {"encoder_hidden_states": values(2, 3, WIDTH)}


def distilbert() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(dim=WIDTH, n_heads=HEADS, n_layers=2, hidden_dim=12, vocab_size=20)
    return DistilBertModel(config), ids()


def bart() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import BartConfig, BartModel

    heads = {"encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS}
    sizes = {"encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "encoder_layers": 1, "decoder_layers": 1}
    config = BartConfig(vocab_size=20, d_model=WIDTH, max_position_embeddings=8, pad_token_id=0, **heads, **sizes)
    return BartModel(config), ids()


def opt() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import OPTConfig, OPTModel

    sizes = {"ffn_dim": 12, "max_position_embeddings": 8, "word_embed_proj_dim": WIDTH, "vocab_size": 20}
    return OPTModel(OPTConfig(**{**SMALL, **sizes})), ids()


def ids() -> dict[str, Tensor]:
    return {"input_ids": torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])}


three = (INNER.repeat(3), None)
one, out = (INNER, None), (None, INNER)
MODELS: dict[Callable[[], Any], dict[str, Any]] = {
    bert: {"query": one, "key": one, "value": one, "attention.output.dense": out},
    vit: {"q_proj": one, "k_proj": one, "v_proj": one, "o_proj": out},
    gpt2: {
        "attn.c_attn": three, "attn.c_proj": out, "crossattention.c_attn": (INNER.repeat(2), None),
        "crossattention.q_attn": one, "crossattention.c_proj": out,
    },
    distilbert: {"q_lin": one, "k_lin": one, "v_lin": one, "out_lin": out},
    bart: {"q_proj": one, "k_proj": one, "v_proj": one, "out_proj": out},
    opt: {"q_proj": one, "k_proj": one, "v_proj": one, "out_proj": out},
}  # fmt: skip


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_models_of_transformers_without_heads(make: Callable[[], Any], attention: str) -> None:
    network, inputs = make()
    network.set_attn_implementation(attention)
    network = randomised(network)
    kept = kept_of_linear(network, MODELS[make])
    readers = tuple(name for name, axes in MODELS[make].items() if axes is out)
    smaller = resized(network, kept)
    close(smaller(**inputs)[0], masked(network, kept, readers)(**inputs)[0])
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in network.parameters())
    counts = [vars(module).get(name) for module in smaller.modules() for name in ("num_heads", "num_attention_heads")]
    assert HEADS not in counts


STREAM = indices(WIDTH, 1, 2, 6)
NARROW = (None, STREAM)
WIDE = (STREAM, None)
STREAMS: dict[Callable[[], Any], dict[str, Any]] = {
    bert: {
        "query": NARROW, "key": NARROW, "value": NARROW, "attention.output.dense": WIDE, "intermediate.dense": NARROW,
        "output.dense": WIDE, "pooler.dense": NARROW,
    },
    vit: {
        "q_proj": NARROW, "k_proj": NARROW, "v_proj": NARROW, "o_proj": WIDE, "fc1": NARROW, "fc2": WIDE,
        "pooler.dense": NARROW,
    },
    gpt2: {
        "attn.c_attn": NARROW, "attn.c_proj": WIDE, "crossattention.q_attn": NARROW, "crossattention.c_proj": WIDE,
        "c_fc": NARROW, "mlp.c_proj": WIDE,
    },
}  # fmt: skip
"""Linear layers that read from the residual stream, and those that write to it."""


@pytest.mark.parametrize("make", STREAMS, ids=lambda make: make.__name__)
def test_models_of_transformers_with_a_narrower_stream(make: Callable[[], Any]) -> None:
    network, inputs = make()
    network = randomised(network)
    kept = {**kept_of_linear(network, STREAMS[make])}
    for path, module in network.named_modules():
        if isinstance(module, nn.Embedding):
            kept[f"{path}.weight"] = NARROW
        elif isinstance(module, nn.LayerNorm):
            kept |= {f"{path}.weight": (STREAM,), f"{path}.bias": (STREAM,)}
        elif isinstance(module, nn.Conv2d):
            kept |= {f"{path}.weight": (STREAM, None, None, None), f"{path}.bias": (STREAM,)}
    names = [name for name, _ in network.named_parameters() if name.endswith(("cls_token", "position_embeddings"))]
    kept |= dict.fromkeys(names, (None, None, STREAM))
    readers = tuple(name for name, axes in STREAMS[make].items() if axes is NARROW)
    whole = copy.deepcopy(network)
    with torch.no_grad():
        for name, axes in kept.items():
            if not name.removesuffix(".weight").endswith(readers):
                tensor = whole.get_parameter(name)
                for axis, index in enumerate(axes):
                    shape = [-1 if a == axis else 1 for a in range(tensor.dim())]
                    tensor *= 1 if index is None else index.view(shape)
    expected = whole(**inputs)[0][..., STREAM]
    close(resized(network, kept)(**inputs)[0], expected)


def test_heads_that_share_keys_and_values() -> None:
    from transformers import LlamaConfig, LlamaModel

    network = LlamaModel(LlamaConfig(num_key_value_heads=2, vocab_size=20, **SMALL))
    network.set_attn_implementation("eager")
    network = randomised(network)
    group = torch.tensor([True, False]).repeat_interleave(SIZE)  # of the first keys, or one query of each pair
    first = torch.tensor([True, True, False, False]).repeat_interleave(SIZE)
    each = torch.tensor([True, False, True, False]).repeat_interleave(SIZE)
    for queries, keys, groups in ((first, group, 2), (each, None, 1)):
        names = {"q_proj": (queries, None), "k_proj": (keys, None), "v_proj": (keys, None), "o_proj": (None, queries)}
        kept = kept_of_linear(network, names)
        smaller = resized(network, kept)
        close(smaller(**ids())[0], masked(network, kept, ("o_proj",))(**ids())[0])
        assert smaller.layers[0].self_attn.num_key_value_groups == groups


def test_heads_are_removed_whole() -> None:
    attention = Attention(WIDTH, HEADS)
    part = indices(WIDTH, 0)
    kept = kept_of_linear(attention, {"qkv": (part.repeat(3), None), "proj": (None, part)})
    with pytest.raises(InputError, match="Attention cannot"):
        resize(attention, kept)


def test_narrower_layers_in_a_block_do_not_change_its_heads() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_heads, self.head_dim = HEADS, SIZE
            self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.attention = nn.MultiheadAttention(WIDTH, HEADS)

    block = Block()
    part = indices(WIDTH, 0, 1)
    resize(block, kept_of_linear(block, {"first": (part, None), "second": (None, part)}))
    assert block.num_heads == HEADS
