"""Masks with constant fan-in: in each layer, every neuron has the same number of weights or none."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tombola.pruning.layers import by_layer
from tombola.pruning.mask import Mask
from tombola.pruning.ranking import select_best
from tombola.pruning.scopes import Counts

# A neuron is a row: an entry of the first dimension, as the output of a linear layer or the channel of a convolution.


def random_constant_fan_in(dense: Mask, counts: Counts, seed: int) -> Mask:
    """A random mask that keeps `counts` weights of each layer (groups of one layer), with constant fan-in.

    A count that the number of neurons does not divide leaves a remainder r: then r random neurons have one weight
    more, so that the total is exact. If there are fewer weights than neurons, the other neurons have none.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for (name,), count in counts.items():
        rows = dense.layers[name].flatten(1)
        fan_in = _fan_in(count, torch.rand(len(rows), generator=generator), rows.sum(1))
        layers[name] = _largest(torch.rand(rows.shape, generator=generator), rows, fan_in).view_as(dense.layers[name])
    return dense.with_layers(layers)


def update_constant_fan_in(
    mask: Mask, drop: Mapping[str, Tensor], grow: Mapping[str, Tensor], counts: Mapping[str, int], ablation: float
) -> Mask:
    """Replace about `counts` weights of each layer as `drop_and_grow` does, with constant fan-in, and ablate neurons
    (SRigL: Lasby et al. 2024, "Dynamic Sparse Training with Structured Sparsity", section 3).

    A weight is salient if it would be kept or grown by `drop_and_grow`: by the scores over the whole layer. A neuron
    is ablated, and remains so, if it has fewer salient weights than the fraction `ablation` (γ_sal) of the layer's
    mean fan-in; but as many neurons stay as the layer's weights need, those with the most salient weights. The
    layer's weights are divided equally between them; of a remainder, one each goes to those with the most salient
    weights. A neuron gets its weights first from its own salient kept ones, by `drop`; then from its pruned ones, by
    `grow`; then from those just dropped. Every layer keeps its number of weights. Ties are broken by index.
    """
    drop, grow = by_layer(drop), by_layer(grow)
    layers = {}
    for name, kept in mask.layers.items():
        total, shape = int(kept.sum()), kept.shape
        if not 0 < total < kept.numel():
            continue
        rows, replaced = kept.flatten(1), counts.get(name, 0)
        drops, grows = (scores[name].detach().cpu().flatten(1) for scores in (drop, grow))
        remaining = select_best(drops.flatten(), rows.flatten(), total - replaced, (name,)).view_as(rows)
        grown = select_best(grows.flatten(), ~rows.flatten(), replaced, (name,)).view_as(rows)
        salient = (remaining | grown).sum(1)
        active = _active(salient, rows, ablation * total / int(rows.any(1).sum()))
        limits = torch.where(active, rows.shape[1], 0)
        fan_in = _fan_in(total, salient.double(), limits)
        order = torch.zeros(rows.shape, dtype=torch.double)  # remaining above pruned above dropped
        for level, (among, scores) in enumerate([(rows & ~remaining, drops), (~rows, grows), (remaining, drops)]):
            order[among] = level + _ranks(scores[among])
        layers[name] = _largest(order, active[:, None].expand_as(rows), fan_in).view(shape)
    return mask.with_layers(layers)


def _active(salient: Tensor, rows: Tensor, least: float) -> Tensor:
    """Which neurons stay: those not ablated before and with at least `least` salient weights, and enough of them for
    all weights."""
    before = rows.any(1)
    active = before & (salient >= least)
    needed = -(-int(rows.sum()) // rows.shape[1])
    ranked = torch.argsort(torch.where(before, salient, -1), descending=True, stable=True)
    active[ranked[: max(needed, 1)]] = True
    return active


def _fan_in(total: int, priority: Tensor, limits: Tensor) -> Tensor:
    """The number of weights of each neuron: equal for all with a limit above 0; the remainder of `total` goes to
    those of the highest `priority`."""
    active = limits > 0
    each, more = divmod(total, int(active.sum()))
    fan_in = torch.where(active, each, 0)
    ranked = torch.argsort(torch.where(active, priority.double(), -1.0), descending=True, stable=True)
    fan_in[ranked[:more]] += 1
    return fan_in


def _ranks(scores: Tensor) -> Tensor:
    """The rank of each entry of a vector, from 0 to below 1; the first of equals has the highest."""
    order = torch.argsort(scores, descending=True, stable=True)
    ranks = torch.empty(len(scores), dtype=torch.double)
    ranks[order] = torch.arange(len(scores) - 1, -1, -1, dtype=torch.double)
    return ranks / max(len(scores), 1)


def _largest(scores: Tensor, among: Tensor, counts: Tensor) -> Tensor:
    """In each row, the `counts` entries with the highest scores `among` those given."""
    order = torch.argsort(torch.where(among, scores.double(), -1.0), dim=1, descending=True, stable=True)
    places = torch.arange(scores.shape[1]).expand_as(order) < counts[:, None]
    return torch.zeros(scores.shape, dtype=torch.bool).scatter_(1, order, places)
