"""Fused attention."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tombola.graph.follower import Follower, Rule, Value, no_units
from tombola.graph.recording import TensorIndex
from tombola.graph.rules.products import product_of_activations


def attended(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """Scaled dot-product attention of queries, keys and values, each [N, heads, T, features]: two products. The units
    of a head are tied."""
    query, key, value = (follower.of(arguments[name]) for name in ("query", "key", "value"))
    first, *rest = no_units(follower)
    for each in (query, key, value):
        if each.sources:
            follower.settle(each, -1)
    keys, values = (_for_each_query(each.units, query.units) for each in (key, value))
    shape = (*query.units.shape[:-1], keys.shape[-2])
    scores = product_of_activations(follower, query.units, keys.transpose(-1, -2), shape)
    mask = arguments.get("attn_mask", arguments.get("attn_bias"))
    if isinstance(mask, TensorIndex):
        follower.ties.tie(scores, follower.of(mask).units)
        follower.attach(follower.of(mask).sources, scores)
    units = product_of_activations(follower, scores, values, tuple(first.units.shape))
    return [Value(units), *rest]


def _for_each_query(units: Tensor, queries: Tensor) -> Tensor:
    """Keys or values that several heads of queries share, once for each of them."""
    times = queries.shape[1] // units.shape[1] if units.dim() == 4 else 1
    return units.repeat_interleave(times, 1) if times > 1 else units


RULES: dict[str, Rule] = dict.fromkeys(
    [
        f"aten._scaled_dot_product_{name}"
        for name in (
            "flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention", "attention_math",
            "fused_attention_overrideable",
        )
    ],
    attended,
)  # fmt: skip
