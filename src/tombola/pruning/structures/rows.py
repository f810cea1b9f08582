"""Rows: the weights of each output row of a layer compete with each other, and with no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tombola.pruning.layers import Kind, Layer, by_layer, outputs_first
from tombola.pruning.mask import Mask
from tombola.pruning.ranking import check_no_nan
from tombola.pruning.scopes import Counts, Group, allocate
from tombola.pruning.structures.structure import SingleWeights
from tombola.utils.errors import InputError

_KINDS: tuple[Kind, ...] = (
    "linear", "convolution", "transposed convolution", "Conv1D", "projection", "recurrent", "bilinear"
)  # fmt: skip
"""The kinds of layers that have output rows."""


@dataclass(frozen=True)
class Rows(SingleWeights):
    """Keeps the best weights of each output row (Wanda, Sun et al. 2024, section 3). A row has all weights of an
    output: a filter of a convolution, a column of Hugging Face's `Conv1D`. The rows of a layer keep the same number;
    where a count is no multiple of the rows, the first keep one more. A row never gains weights: what one cannot
    keep, because it has fewer left, the others do.
    """

    layers: Mapping[str, Layer]

    def keep_best(self, scores: Mapping[str, Tensor], mask: Mask, counts: Counts) -> Mask:
        """Among equal scores of a row the first is removed first. The layers of a larger group, as one total of all
        is, compete with each other instead."""
        mask = super().keep_best(scores, mask, {group: n for group, n in counts.items() if len(group) > 1})
        by_name, kept, changed = by_layer(scores), mask.layers, dict[str, Tensor]()
        for name, count in ((group[0], n) for group, n in counts.items() if len(group) == 1):
            layer, values = self.layers[name], by_name[name].detach().cpu().float()
            check_no_nan(values[kept[name]], (name,))
            finite = values.clamp(min=torch.finfo(values.dtype).min).masked_fill(~kept[name], -torch.inf)
            left = outputs_first(kept[name], layer).flatten(1)  # [out, weights of a row]
            best = best_of_rows(outputs_first(finite, layer).flatten(1), left, count)
            changed[name] = outputs_first(best.view(row_shape(layer)), layer).reshape(layer.shape)
        return mask.with_layers(changed)


def row_shape(layer: Layer) -> tuple[int, ...]:
    """The shape of a layer's weight with the axis of outputs first. Raises `InputError` if it has no output rows."""
    if layer.kind not in _KINDS:
        advice = f'use scope "layer", or leave it out with leave_out = ["{layer.label}"]'
        raise InputError(f'scope: "row" does not support {layer.label}, of kind {layer.kind}; {advice}')
    return tuple(outputs_first(torch.empty(layer.shape, device="meta"), layer).shape)


def best_of_rows(scores: Tensor, left: Tensor, count: int) -> Tensor:
    """The `count` best entries `left`, the same number of each row up to one; bool [rows, weights of a row]."""
    limits: dict[Group, int] = {(str(row),): n for row, n in enumerate(left.sum(1).tolist())}
    shares = torch.tensor([*allocate(count, dict.fromkeys(limits, 1.0), limits).values()])
    order = scores.argsort(dim=1, stable=True).flip(1)  # the first of equals come last
    ranks = torch.arange(scores.shape[1]).expand_as(scores)
    best = torch.zeros_like(left).scatter_(1, order, ranks < shares[:, None])
    return best & left
