"""Attention heads."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tombola
from tests.support.errors import raises_input_error
from tests.support.prunable_networks import tiny_gpt2
from tests.support.structures import assert_whole, prune
from tombola.pruning.mask import Mask
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.structures.heads import Heads
from tombola.zoo.models.vit import vit


def small_vit() -> nn.Module:
    torch.manual_seed(0)
    return vit(inputs=(1, 8, 8), classes=3, patch=4, width=12, depth=2, heads=3)


class Layer(nn.Module):
    """Attention with the names that BERT has."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.dense = (nn.Linear(width, width) for _ in range(4))
        self.other = nn.Linear(width, width)


def bert() -> nn.Module:
    return nn.Sequential(Layer(6), Layer(6))


BERT = Heads(3, query="*.query", key="*.key", value="*.value", output="*.dense")


def heads_left(mask: Mask, block: int) -> list[bool]:
    """Which heads of the vit's block are left; each must be whole, or gone whole."""
    qkv, proj = (mask[f"block{block}.attention.{part}.weight"] for part in ("qkv", "proj"))
    found = []
    for head in range(3):
        parts = [*qkv.view(3, 3, 4, 12)[:, head], proj[:, 4 * head : 4 * head + 4]]
        assert all(part.all() or not part.any() for part in parts)
        assert len({bool(part.any()) for part in parts}) == 1
        found.append(bool(parts[0].any()))
    return found


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_heads_of_the_vit_are_pruned_in_all_projections(scope: str) -> None:
    made = small_vit()
    mask = tombola.prune(made, 2 / 3, structure="heads", scope=scope, score="random")
    gone = [heads_left(mask, block).count(False) for block in (1, 2)]
    assert gone == [1, 1] if scope == "layer" else sum(gone) == 2
    assert all(kept.all() for name, kept in mask.items() if "attention" not in name)


def test_a_pruned_head_outputs_zeros() -> None:
    made = small_vit()
    attention = made.block1.attention
    for layer in (attention.qkv, attention.proj):
        nn.init.zeros_(layer.bias)
    scores = {name: torch.ones(kept.shape) for name, kept in Mask.full(made).items()}
    scores["block1.attention.proj.weight"][:, 4:8] = -1  # head 1 is the worst, by its columns alone
    tombola.prune(made, 2 / 3, structure="heads", score=lambda _: scores, leave_out=["block2"])
    given = []
    attention.proj.register_forward_pre_hook(lambda _, x: given.append(x[0]))
    attention(torch.randn(2, 4, 12))
    assert [bool(part.any()) for part in given[0].split(4, -1)] == [True, False, True]


def test_heads_of_other_networks_are_described_by_layer_names() -> None:
    made = bert()
    mask = prune(BERT(PrunableNetwork(made)), Mask.full(made), 1 / 3)
    for layer in "01":
        rows = [mask[f"{layer}.{part}.weight"].view(3, 2, 6) for part in ("query", "key", "value")]
        columns = mask[f"{layer}.dense.weight"].t().view(3, 2, 6)
        alive = [{bool(part[head].any()) for part in (*rows, columns)} for head in range(3)]
        assert sorted(map(sorted, alive)) == [[False], [True], [True]]
        assert all(bool(part[head].any()) == bool(part[head].all()) for part in (*rows, columns) for head in range(3))
        assert mask[f"{layer}.other.weight"].all()


def test_detected_heads_are_those_described() -> None:
    made = small_vit()
    described = Heads(3, qkv="*.attention.qkv", output="*.attention.proj")
    masks = [tombola.prune(copy.deepcopy(made), 0.3, structure=each) for each in (described, "heads")]
    assert masks[0] == masks[1]


@pytest.mark.parametrize(
    ("layers", "facts"),
    [
        ({"key": 2, "value": 2}, ["keys of dense", "2 rows", "6"]),
        ({"value": 3}, ["values", "6 rows", "dense", "not 3"]),
        ({"qkv": 12}, ["qkv", "18 rows", "dense", "not 12"]),
    ],
)
def test_heads_that_share_keys_or_values_are_refused(layers: dict[str, int], facts: list[str]) -> None:
    rows = {"query": 6, "key": 6, "value": 6, "dense": 6} | layers
    made = nn.ModuleDict({name: nn.Linear(6, count) for name, count in rows.items()})
    names = ["qkv"] if "qkv" in layers else ["query", "key", "value"]
    with raises_input_error(*facts):
        Heads(1, output="dense", **{name: name for name in names})(PrunableNetwork(made))


def test_an_error_for_unknown_attention_points_to_heads() -> None:
    with raises_input_error("heads", "tombola.pruning.structures.Heads"):
        tombola.prune(nn.Sequential(nn.Linear(4, 4)), 0.5, structure="heads")


@pytest.mark.parametrize("left_out", ["0.query", "0"])
def test_heads_of_a_layer_that_is_left_out_stay_whole(left_out: str) -> None:
    mask = tombola.prune(bert(), 2 / 3, structure=BERT, leave_out=[left_out])
    assert all(kept.all() for name, kept in mask.items() if name.startswith("0."))
    assert mask.counts["1.dense.weight"] == mask.counts["1.query.weight"] == 24


class SelfAttention(nn.Module):
    """Attention of a tensor to parts of itself."""

    def __init__(self, widths: dict[str, Any]) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 4, batch_first=True, bias=False, **widths)
        self.widths = [widths.get(name, 12) for name in ("kdim", "vdim")]
        nn.init.eye_(self.attention.out_proj.weight)

    def forward(self, x: Tensor) -> Tensor:
        keys, values = (x[..., :width] for width in self.widths)
        found: Tensor = self.attention(x, keys, values, need_weights=False)[0]
        return found


@pytest.mark.parametrize("widths", [{}, {"kdim": 5, "vdim": 6}])
def test_heads_of_torchs_attention_are_pruned_in_all_projections(widths: dict[str, Any]) -> None:
    torch.manual_seed(0)
    made, x = SelfAttention(widths), torch.randn(2, 5, 12)
    mask = tombola.prune(made, 0.5, structure="heads", example=x)
    *projections, output = mask.layers.values()
    assert [kept.shape[1] for kept in projections] == [12, *made.widths]
    alive = assert_whole([*(kept.view(4, 3, -1) for kept in projections), output.t().reshape(4, 3, 12)])
    assert sum(alive) == 2
    assert mask.count == mask.size // 2
    assert [bool(part.any()) for part in made(x).split(3, -1)] == alive


def test_heads_of_gpt2_are_columns_of_c_attn_and_rows_of_c_proj() -> None:
    model = tiny_gpt2()
    attention = model.transformer.h[0].attn
    mask = tombola.prune(model, 0.5, structure="heads")
    into, out = (mask[f"transformer.h.0.attn.{name}.weight"] for name in ("c_attn", "c_proj"))  # [in, out]
    assert (into.shape, out.shape) == ((16, 48), (16, 16))
    alive = assert_whole([into.view(16, 3, 2, 8).permute(2, 0, 1, 3), out.view(2, 8, 16)])
    assert sum(alive) == 1
    assert {name: mask.sizes[name] - count for name, count in mask.counts.items()} == {
        "transformer.h.0.attn.c_attn.weight": 384,
        "transformer.h.0.attn.c_proj.weight": 128,
        "transformer.h.0.mlp.c_fc.weight": 0,
        "transformer.h.0.mlp.c_proj.weight": 0,
    }
    given = []
    attention.c_proj.register_forward_pre_hook(lambda _, x: given.append(x[0]))
    model(torch.arange(6).view(1, 6))
    assert [bool(part.any()) for part in given[0].split(8, -1)] == alive


def test_heads_that_alternate_with_their_parts_are_found_too() -> None:
    """The names are those of GPT-2, but the query, key and value of a head are adjacent."""
    from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

    options = {"vocab_size": 20, "n_positions": 8, "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = GPTBigCodeForCausalLM(GPTBigCodeConfig(**options, multi_query=False, bos_token_id=0, eos_token_id=0))
    mask = tombola.prune(model, 0.5, structure="heads")
    into, out = (mask[f"transformer.h.0.attn.{name}.weight"] for name in ("c_attn", "c_proj"))
    assert sum(assert_whole([into.view(2, 24, 16), out.t().reshape(2, 8, 16)])) == 1


@pytest.mark.parametrize(
    ("description", "fact"),
    [
        (Heads(3, query="*.query", key="*.key", output="*.dense"), "query, key and value"),
        (Heads(3, query="*.qury", key="*.key", value="*.value", output="*.dense"), 'linear layer "*.qury"'),
        (Heads(3, query="0.query", key="*.key", value="*.value", output="*.dense"), "different numbers of layers"),
        (Heads(4, query="*.query", key="*.key", value="*.value", output="*.dense"), "4 equal parts"),
    ],
)
def test_invalid_descriptions_are_refused(description: Heads, fact: str) -> None:
    with raises_input_error(fact):
        description(PrunableNetwork(bert()))
