"""prune: prune a network in one call, without a search."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tombola.pruning import sparsegpt, structures
from tombola.pruning.example_inputs import first_inputs
from tombola.pruning.held_weight import held_weight
from tombola.pruning.hold import check_held
from tombola.pruning.layers import display_name
from tombola.pruning.mask import Mask
from tombola.pruning.options import Density, PruningOptions
from tombola.pruning.pruner import Pruner
from tombola.pruning.scopes import Counts
from tombola.pruning.scores import Score
from tombola.pruning.scores.inputs import ScoreInputs, generators, repeatable
from tombola.pruning.scores.losses import Loss, loss_function
from tombola.pruning.structures.unit_structure import Cost
from tombola.pruning.structures.units import GroupScore
from tombola.utils.errors import InputError
from tombola.utils.model_inputs import Inputs
from tombola.utils.network_copy import copy_network
from tombola.utils.random_state import seeded
from tombola.utils.seeds import Purpose, check_seed, derive

_log = logging.getLogger(__name__)


def prune(
    network: nn.Module,
    density: Density | None = None,
    *,
    score: str | Score = "magnitude",
    scope: str = "layer",
    structure: str | structures.Heads = "weights",
    data: Iterable[Any] | None = None,
    loss: str | Loss = "cross_entropy",
    start: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    leave_out: Sequence[str] = (),
    include: Sequence[str] = (),
    outputs: Sequence[str] | None = None,
    rounds: int | None = None,
    group_score: GroupScore = "mean",
    round_to: int = 1,
    cost: Cost = "units",
    example: Inputs | None = None,
) -> Mask:
    """Prune `network` in place, without training: pruned weights become zero. Returns the mask; see `hold`.

    Only the score `sparsegpt` also changes the weights left. It prunes layer after layer, and updates them so that
    the layer's outputs on `data` change little (Frantar & Alistarh 2023, section 3). Its scope is `layer`, `row` or
    `erk`, its structure `weights` or `n:m`.

    `density` is the fraction of weights to keep, in (0, 1], of each layer or of all together, depending on the
    `scope` (`layer`, `row`, `global`, `erk`); of n weights round((1 - density) n) are removed. A table gives
    densities by layer name or pattern; other layers stay as they are. Layers in `leave_out` are not pruned, and do
    not count; neither are biases, normalisation and embeddings, unless `include` names them (see `prunable`).

    With a `structure` (`channels`, `neurons`, `heads` or `Heads(...)`, `width`, `blocks:4x4`) units are pruned with
    all that is coupled to them, and `density` is the fraction of units or, depending on the `cost`, of `weights` or
    multiply-adds (`macs`) of the whole network. What is coupled is found by running the network on an `example`, a
    batch of its inputs, by default that of `data`, or a plausible one. The score of a unit is the `group_score`
    (`mean`, `sum`, `norm`) of its weights. Each set of units keeps a multiple of `round_to`, and at least that (0:
    none may be left). Units that are outputs, those of output layers that `outputs` names too, are never pruned.
    Patterns as `2:4` have their own density, so it may be omitted. See docs/how-to/pruning.md.

    `score` is a name in `SCORES`, `sparsegpt`, or a function of `ScoreInputs`. Scores that need examples use `data`:
    batches `(x, y)`, or whatever the `loss` accepts, on the network's device; those that need initial weights use
    `start`, a `state_dict`. `loss` is `"cross_entropy"`, `"mse"`, or a function `loss(network, batch)`. Scores are
    computed in `rounds` on the way (100 for `synflow`).

    Scores are computed on a copy (see `ScoreInputs.network`), so nothing but the weights changes. Random scores, the
    global random states and the generator of a `DataLoader` start at `seed`; their states are restored. Weights
    pruned by a hold stay pruned; `density` is still that of the whole network. Logs a warning about empty layers.
    Raises `InputError` for invalid arguments, where all scores are equal, or if weights pruned by a hold are not
    zero, and then changes nothing.

    >>> mask = prune(nn.Linear(10, 5), 0.3)
    >>> mask.count
    15
    """
    updates = isinstance(score, str) and score == "sparsegpt"
    if updates and rounds is not None:
        raise InputError('rounds: has no meaning with score "sparsegpt", which prunes once')
    options = PruningOptions(
        density=density,
        scope=scope,
        leave_out=leave_out,
        include=include,
        outputs=outputs,
        score="magnitude" if updates else score,
        structure=structure,
        rounds=rounds,
        group_score=group_score,
        round_to=round_to,
        cost=cost,
    )
    if density is None and options.pattern_density is None:
        raise InputError("density: is missing; should be a number in (0, 1]")
    prunable = options.prunable(network, partial(first_inputs, data) if example is None else example)
    pruner, full = options.pruner(prunable), prunable.dense
    check_held(network)
    holds = {name: held_weight(network, name) for name in full}
    held = Mask({name: full[name] if weight is None else weight.kept for name, weight in holds.items()})
    goal = pruner.scope.keeps(pruner.units_left(full))
    if held != full and updates:
        raise InputError('score: "sparsegpt" needs dense layers; call tombola.pruning.hold.release')
    if held != full:
        _check_held(pruner, held, goal)
    loss = loss_function(loss)
    check_seed(seed)
    with seeded(derive(seed, Purpose.SCORE), generators(data)):
        inputs = ScoreInputs(
            weights={name: network.get_parameter(name).detach() for name in full},
            mask=held,
            seed=seed,
            _start=None if start is None else lambda: _checked_start(start, full),
            _network=lambda: copy_network(network),
            _batches=None if data is None else repeatable(data),
            loss=loss,
        )
        if updates:
            mask, weights = sparsegpt.prune_and_update(inputs, pruner.structure, goal)
            _copy_weights(weights, network)
        else:
            mask = pruner.prune_to(inputs, goal)
    mask.apply_(network)
    if empty := [*map(display_name, mask.empty_layers)]:
        more = f" and {len(empty) - 5} more layers" if len(empty) > 5 else ""
        _log.warning("all weights were pruned in %s%s", ", ".join(empty[:5]), more)
    return mask


@torch.no_grad()
def _copy_weights(weights: Mapping[str, Tensor], network: nn.Module) -> None:
    for name, weight in weights.items():
        network.get_parameter(name).copy_(weight)


def _check_held(pruner: Pruner, held: Mask, goal: Counts) -> None:
    """Refuse a goal that cannot be reached from the weights that the hold keeps."""
    if isinstance(pruner.structure, structures.NMPattern):
        raise InputError(f"structure: {pruner.structure} needs dense layers; call tombola.pruning.hold.release")
    for group, left in pruner.units_left(held).items():
        if left < goal[group]:
            layers = group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}"
            raise InputError(f"density: would keep {goal[group]} of {layers}, but its hold keeps only {left}")


def _checked_start(start: Mapping[str, Tensor], full: Mask) -> Mapping[str, Tensor]:
    for name, shape in full.shapes.items():
        if name not in start or tuple(start[name].shape) != shape:
            raise InputError(f"start: should be a state_dict of this network, with {name} of shape {shape}")
    return start
