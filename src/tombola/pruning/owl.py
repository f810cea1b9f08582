"""OWL: densities of layers by their outliers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tombola.pruning.layers import by_layer, display_name, matching, names_of
from tombola.pruning.mask import Mask
from tombola.pruning.scopes import Group, allocate, removed_count
from tombola.pruning.scores.activations import wanda
from tombola.pruning.scores.inputs import ScoreInputs, generators, repeatable
from tombola.pruning.scores.losses import Loss, loss_function
from tombola.utils.errors import InputError, unknown
from tombola.utils.network_copy import copy_network
from tombola.utils.random_state import seeded
from tombola.utils.seeds import Purpose, derive


def owl_densities(
    network: nn.Module,
    density: float,
    data: Iterable[Any],
    *,
    outlier: float = 5.0,
    spread: float = 0.08,
    blocks: Sequence[str] = (),
    loss: str | Loss = "cross_entropy",
    leave_out: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, float]:
    """A density for each layer, higher where more scores of Wanda are outliers (OWL, Yin et al. 2024,
    arXiv 2310.05175): a table for `tombola.prune`, whatever its score.

    The ratio of outliers is the fraction of a layer's scores above `outlier` (M of the paper) times their mean. The
    densities follow it linearly within a range of 2 × `spread` (λ) around `density`, which is their mean over all
    weights: in the scope `layer` the total is exact, n - round((1 - density) n) of all n weights; in the scope `row`
    each row is rounded. Layers of one of the `blocks`, modules by name or pattern, have one ratio and one density:
    in the paper those of a transformer block. Others have their own.

    Raises `InputError` for invalid arguments, for layers whose inputs Wanda does not see, and where `spread` would
    leave a layer nothing.

    >>> network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> batches = [(torch.randn(32, 8), torch.randint(4, (32,)))]
    >>> mask = tombola.prune(network, owl_densities(network, 0.3, batches), score="wanda", data=batches)
    >>> mask.count  # of 192
    58
    """
    if isinstance(density, bool) or not 0 < density <= 1:
        raise InputError(f"density: should be a number greater than 0 and at most 1, not {density!r}")
    if not outlier > 0 or not spread >= 0:
        raise InputError(f"outlier, spread: should be above 0, and at least 0, not {outlier!r} and {spread!r}")
    dense = Mask.full(network, leave_out=leave_out)
    with seeded(derive(seed, Purpose.SCORE), generators(data)):
        inputs = ScoreInputs(
            weights={name: network.get_parameter(name).detach() for name in dense},
            mask=dense,
            _network=lambda: copy_network(network),
            _batches=repeatable(data),
            loss=loss_function(loss),
        )
        scores = by_layer(wanda(inputs))
    if missing := [display_name(name) for name in dense.layers if name not in scores]:
        raise InputError(f"model: OWL sees no inputs of {missing[0]}; leave it out with leave_out")
    ratios = _outlier_ratios({name: scores[name] for name in _left_in(dense, leave_out)}, outlier, blocks)
    return _exact({display_name(name): dense.sizes[name] for name in ratios}, density, spread, [*ratios.values()])


def _left_in(dense: Mask, leave_out: Sequence[str]) -> list[str]:
    names = {name: names_of(name) for name in dense.layers}
    left_out = {name for pattern in leave_out for name in matching(pattern, names)}
    return [name for name in names if name not in left_out]


def _outlier_ratios(scores: Mapping[str, Tensor], outlier: float, blocks: Sequence[str]) -> dict[str, float]:
    """By layer: which fraction of the scores, of it or its block, are above `outlier` times their mean."""
    names, members = {name: names_of(name) for name in scores}, {name: [name] for name in scores}
    for block in blocks:
        matched = matching(block, names)
        if not matched:
            raise InputError(f"blocks: {unknown('layer', block, map(display_name, scores))}")
        members |= dict.fromkeys(matched, matched)
    found = {}
    for name, block_layers in members.items():
        values = torch.cat([scores[layer].flatten() for layer in block_layers]).double()
        found[name] = float((values > outlier * values.mean()).double().mean())
    return found


def _exact(sizes: Mapping[str, int], density: float, spread: float, ratios: Sequence[float]) -> dict[str, float]:
    """Densities in proportion to the ratios, and an exact total."""
    low, high, total = min(ratios), max(ratios), sum(sizes.values())
    raised: dict[Group, float] = {
        (name,): 2 * spread * (ratio - low) / (high - low) if high > low else 0.0
        for name, ratio in zip(sizes, ratios, strict=True)
    }
    mean = sum(raised[name,] * n for name, n in sizes.items()) / total
    least = density + min(raised.values()) - mean
    if least <= 0:
        raise InputError(f"spread: {spread:g} leaves a layer a density of {least:.3g}; set less than {density / 2:g}")
    shares: dict[Group, float] = {(name,): (density + raised[name,] - mean) * n for name, n in sizes.items()}
    limits: dict[Group, int] = {(name,): n for name, n in sizes.items()}
    counts = allocate(total - removed_count(1 - density, total), shares, limits)
    if empty := [name for name in sizes if not counts[name,]]:
        raise InputError(f"density: leaves {empty[0]} no weight; set more")
    return {name: counts[name,] / n for name, n in sizes.items()}
