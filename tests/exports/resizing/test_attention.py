from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support.resized import close, indices, randomised, resized, values
from tombola.exports.onnx_file import read_onnx, write_onnx
from tombola.exports.resizing import resize
from tombola.exports.resizing.attention import ResizedMultiheadAttention
from tombola.exports.torch_export import read_exported, write_exported
from tombola.utils.errors import InputError

HEADS, SIZE = 4, 2
WIDTH = HEADS * SIZE


def kept_of(
    attention: nn.MultiheadAttention, heads: Tensor, width: Tensor, prefix: str = ""
) -> dict[str, tuple[Tensor | None, ...]]:
    """What stays of attention that loses heads, and entries of the width of its queries and outputs."""
    inner = heads.repeat_interleave(SIZE)
    own = width if attention._qkv_same_embed_dim else None
    kept = {
        "in_proj_weight": (inner.repeat(3), width),
        "in_proj_bias": (inner.repeat(3),),
        "q_proj_weight": (inner, width),
        "k_proj_weight": (inner, own),
        "v_proj_weight": (inner, own),
        "bias_k": (None, None, inner),
        "bias_v": (None, None, inner),
        "out_proj.weight": (width, inner),
        "out_proj.bias": (width,),
    }
    present = dict(attention.named_parameters())
    return {prefix + name: axes for name, axes in kept.items() if name in present}


def masked(attention: nn.MultiheadAttention, heads: Tensor) -> nn.MultiheadAttention:
    """Without what the output projection reads of removed heads."""
    attention = copy.deepcopy(attention)
    with torch.no_grad():
        attention.out_proj.weight *= heads.repeat_interleave(SIZE)
    return attention


MASKS = ["none", "padding", "float padding", "attention", "both", "causal", "causal and padding", "float"]


def masks(which: str, n: int, queries: int, keys: int) -> dict[str, Any]:
    padding = torch.zeros(n, keys, dtype=torch.bool)
    padding[-1, keys - 1 :] = True
    attention = torch.zeros(queries, keys, dtype=torch.bool)
    attention[0, 1] = True
    causal = torch.ones(queries, keys, dtype=torch.bool).triu(1)
    found = {
        "none": {},
        "padding": {"key_padding_mask": padding},
        "float padding": {"key_padding_mask": padding.double() * -1.5},
        "attention": {"attn_mask": attention},
        "both": {"attn_mask": attention, "key_padding_mask": padding},
        "causal": {"attn_mask": causal, "is_causal": True},
        "causal and padding": {"attn_mask": causal, "is_causal": True, "key_padding_mask": padding},
        "float": {"attn_mask": values(queries, keys)},
    }
    return found[which]


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.booleans(), min_size=HEADS, max_size=HEADS).filter(any),
    st.lists(st.booleans(), min_size=WIDTH, max_size=WIDTH).filter(any),
    st.fixed_dictionaries({name: st.booleans() for name in ("bias", "add_bias_kv", "add_zero_attn", "batch_first")}),
    st.sampled_from(["self", "cross", "other widths"]),
    st.sampled_from(MASKS),
    st.booleans(),
    st.booleans(),
)
def test_without_heads_and_width_it_is_the_masked_attention(
    some: list[bool], stream: list[bool], options: dict[str, bool], kind: str, mask: str, weights: bool, batched: bool
) -> None:
    heads, width = torch.tensor(some), torch.tensor(stream)
    widths = {"kdim": 5, "vdim": 6} if kind == "other widths" else {}
    attention = randomised(nn.MultiheadAttention(WIDTH, HEADS, **options, **widths))
    smaller = resized(attention, kept_of(attention, heads, width))
    n, queries, keys = 3 if batched else 1, 4, 4 if kind == "self" else 5
    query = values(n, queries, WIDTH) * width
    key = query if kind == "self" else values(n, keys, widths.get("kdim", WIDTH), seed=2)
    value = query if kind == "self" else values(n, keys, widths.get("vdim", WIDTH), seed=3)
    if kind == "cross":
        key, value = key * width, value * width
    given_masks = masks(mask, n, queries, keys)
    if not batched:
        query, key, value = query[0], key[0], value[0]
        given_masks = {k: v[0] if k == "key_padding_mask" else v for k, v in given_masks.items()}
    elif not options["batch_first"]:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    ours = [x[..., width] if x.shape[-1] == WIDTH else x for x in (query, key, value)]
    if kind == "self":
        ours = ours[:1] * 3
    more: dict[str, Any] = {**given_masks, "need_weights": weights, "average_attn_weights": False}
    expected, their_weights = masked(attention, heads)(query, key, value, **more)
    found, our_weights = smaller(*ours, **more)
    close(found, expected[..., width])
    if weights:
        close(our_weights, their_weights[..., heads, :, :])
        average = smaller(*ours, **more | {"average_attn_weights": True})[1]
        close(average, our_weights.mean(-3))
    assert (smaller.num_heads, smaller.head_dim, smaller.embed_dim) == (sum(some), SIZE, sum(stream))
    assert isinstance(smaller, nn.MultiheadAttention)


def test_it_stays_of_the_class_of_torch_where_that_can_say_its_sizes() -> None:
    attention = randomised(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True))
    heads, width, x = indices(HEADS, 1), indices(WIDTH, 0, 5), values(2, 3, WIDTH)
    smaller = resized(attention, kept_of(attention, heads, width))
    assert type(smaller) is nn.MultiheadAttention
    x = x * width
    expected = masked(attention, heads)(x, x, x)[0][..., width]
    with torch.no_grad():  # both ways: torch's fast path, and the other one
        close(smaller(*(x[..., width],) * 3)[0], expected)
    close(smaller(*[x[..., width]] * 3)[0], expected)


def test_a_mask_for_each_head_is_one_for_the_heads_that_are_left() -> None:
    attention, heads = randomised(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)), indices(HEADS, 2)
    smaller, x = resized(attention, kept_of(attention, heads, indices(WIDTH))), values(2, 3, WIDTH)
    mask = values(2, HEADS, 3, 3, seed=4)
    expected = masked(attention, heads)(x, x, x, attn_mask=mask.flatten(0, 1))[0]
    close(smaller(x, x, x, attn_mask=mask[:, heads].flatten(0, 1))[0], expected)
    with pytest.raises(InputError, match=r"3 heads.* 6 entries, not 8"):
        smaller(x, x, x, attn_mask=mask.flatten(0, 1))
    with pytest.raises(InputError, match="is_causal"):
        smaller(x, x, x, is_causal=True)


def test_dropout_and_gradients() -> None:
    attention = randomised(nn.MultiheadAttention(WIDTH, HEADS, dropout=0.5, batch_first=True))
    smaller, x = (
        resized(attention, kept_of(attention, indices(HEADS, 0), indices(WIDTH))).train(),
        values(2, 3, WIDTH),
    )
    torch.manual_seed(0)
    for weights in (True, False):
        assert not torch.equal(smaller(x, x, x, need_weights=weights)[0], smaller(x, x, x, need_weights=weights)[0])
    smaller(x, x, x)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in smaller.parameters())


def layer_kept(layer: Any, prefix: str, heads: Tensor, width: Tensor) -> dict[str, tuple[Tensor | None, ...]]:
    """What stays of an encoder or decoder layer that loses heads, every second hidden unit, and width."""
    hidden = torch.arange(layer.linear1.out_features) % 2 == 0
    kept = kept_of(layer.self_attn, heads, width, f"{prefix}self_attn.")
    if hasattr(layer, "multihead_attn"):
        kept |= kept_of(layer.multihead_attn, heads, width, f"{prefix}multihead_attn.")
    kept |= {f"{prefix}linear1.weight": (hidden, width), f"{prefix}linear1.bias": (hidden,)}
    kept |= {f"{prefix}linear2.weight": (width, hidden), f"{prefix}linear2.bias": (width,)}
    for name, _ in layer.named_parameters():
        if name.startswith("norm"):
            kept[prefix + name] = (width,)
    return kept


def zeroed(network: nn.Module, heads: Tensor, width: Tensor) -> None:
    """Zeros for the removed heads, hidden units and entries of the stream of all layers in a network."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.out_proj.weight *= heads.repeat_interleave(SIZE)
                module.out_proj.weight *= width[:, None]
                module.out_proj.bias *= width
            elif isinstance(module, nn.LayerNorm):
                module.weight *= width
                module.bias *= width
            elif isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
                module.linear2.weight *= torch.arange(module.linear1.out_features) % 2 == 0
                module.linear2.weight *= width[:, None]
                module.linear2.bias *= width


WHOLE = indices(WIDTH)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize(
    ("heads", "width"),
    [
        (indices(HEADS, 1, 3), WHOLE),
        (indices(HEADS), indices(WIDTH, 2)),
        (indices(HEADS, 0, 1), indices(WIDTH, 0, 1, 2, 3)),
    ],
)
@pytest.mark.parametrize("padded", [False, True])
def test_transformer_encoders(norm_first: bool, heads: Tensor, width: Tensor, padded: bool) -> None:
    """With and without gradients: torch's layers have a fast path, which makes nested tensors of padded inputs."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 6, norm_first=norm_first, batch_first=True)
    norm = nn.LayerNorm(WIDTH) if norm_first else None
    network = randomised(nn.TransformerEncoder(layer, 2, norm, enable_nested_tensor=not norm_first))
    zeroed(network, heads, width)
    kept = {
        k: v for i, one in enumerate(network.layers) for k, v in layer_kept(one, f"layers.{i}.", heads, width).items()
    }
    if norm:
        kept |= {"norm.weight": (width,), "norm.bias": (width,)}
    smaller = resized(network, kept)
    x = values(3, 4, WIDTH) * width
    padding = torch.arange(4)[None] >= torch.tensor([4, 2, 3])[:, None] if padded else None
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            expected = network(x, src_key_padding_mask=padding)[..., width]
            close(smaller(x[..., width], src_key_padding_mask=padding), expected)


def test_transformers_with_encoder_and_decoder() -> None:
    heads, width = indices(HEADS, 1), indices(WIDTH, 2, 3, 7)
    network = randomised(nn.Transformer(WIDTH, HEADS, 1, 2, 6, batch_first=True))
    zeroed(network, heads, width)
    kept: dict[str, Any] = {}
    for name, stack in (("encoder", network.encoder), ("decoder", network.decoder)):
        kept |= {f"{name}.norm.weight": (width,), f"{name}.norm.bias": (width,)}
        for i, layer in enumerate(stack.layers):
            kept |= layer_kept(layer, f"{name}.layers.{i}.", heads, width)
    smaller, source, target = resized(network, kept), values(2, 4, WIDTH) * width, values(2, 3, WIDTH, seed=2) * width
    causal = nn.Transformer.generate_square_subsequent_mask(3, dtype=torch.float64)
    expected = network(source, target, tgt_mask=causal)[..., width]
    close(smaller(source[..., width], target[..., width], tgt_mask=causal), expected)


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.attention(x, x, x)


def test_it_can_be_exported(tmp_path: Path) -> None:
    network = Attends().eval()
    heads, x = indices(HEADS, 1, 2), values(2, 3, WIDTH).float()
    resize(network, kept_of(network.attention, heads, WHOLE, "attention."))
    assert type(network.attention) is ResizedMultiheadAttention
    with torch.no_grad():
        write_exported(network, x, tmp_path / "network.pt2")
        write_onnx(network, x, tmp_path / "network.onnx", {})
        for batch in (x, x[:1], values(5, 3, WIDTH).float()):
            expected = network(batch)
            torch.testing.assert_close(read_exported(tmp_path / "network.pt2")(batch), expected)
            torch.testing.assert_close(tuple(read_onnx(tmp_path / "network.onnx")(batch).values()), expected)
