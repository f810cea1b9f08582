"""MaskSource: makes the masks of an experiment by pruning trained networks or, if nothing is trained, by counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from tombola.experiments.score_inputs import prune
from tombola.experiments.workload import ScoreSource
from tombola.pruning.exchangeable_units import ExchangeableUnits, UnitPermutation
from tombola.pruning.mask import Mask
from tombola.pruning.pruner import Pruner
from tombola.pruning.random_mask import random_mask
from tombola.pruning.scopes import Counts, allocate
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.pruning.scores.weights import magnitude, uniform
from tombola.pruning.structures import UNSTRUCTURED, Structure
from tombola.pruning.weight_matching import match_weights
from tombola.runs.initial_state import interpolate
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.studies.rehearsal import MadeUp


class MaskSource(Protocol):
    """Makes masks."""

    def prune(self, source: ScoreSource, run: BaseRun, outcome: Outcome, seed: int) -> Mask:
        """The mask of the next level after `run`."""

    def random_mask(
        self, like: Mask, dense: Mask, counts: Counts, seed: int, structure: Structure = UNSTRUCTURED
    ) -> Mask:
        """See `tombola.pruning.random_mask`."""

    def match(self, units: ExchangeableUnits, first: Outcome, second: Outcome) -> UnitPermutation:
        """Match the units of two trained networks."""

    def prune_between(
        self, pruner: Pruner, dense: Mask, one: Outcome, other: Outcome, share: float, like: Mask
    ) -> Mask:
        """Prune (1 - share) · one + share · other by magnitude, within the scope of `pruner`, to the counts of
        `like`."""


class ExactMasks:
    """The masks of the experiment."""

    def prune(self, source: ScoreSource, run: BaseRun, outcome: Outcome, seed: int) -> Mask:
        return prune(source, run, outcome, seed)

    def random_mask(
        self, like: Mask, dense: Mask, counts: Counts, seed: int, structure: Structure = UNSTRUCTURED
    ) -> Mask:
        return random_mask(like, dense, counts, seed, structure)

    def match(self, units: ExchangeableUnits, first: Outcome, second: Outcome) -> UnitPermutation:
        return match_weights(units, first.final, second.final)

    def prune_between(
        self, pruner: Pruner, dense: Mask, one: Outcome, other: Outcome, share: float, like: Mask
    ) -> Mask:
        first, second = ({name: outcome.final[name] for name in dense} for outcome in (one, other))
        by_magnitude = replace(pruner, score=magnitude, rounds=1)
        return by_magnitude.prune_to(ScoreInputs(interpolate(first, second, share), dense), pruner.units_left(like))


class StandInMask(Mask):
    """A mask with the right numbers of weights, but not the right weights."""


class StandInMasks(ExactMasks):
    """After known outcomes, the masks of the experiment; after made-up ones, stand-ins.

    Ranking single weights would take a second for ten million of them. So a stand-in keeps the right number of
    weights in one contiguous piece. Its position depends on the run, so that masks of different origin differ. Units
    of a structure are drawn at random.
    """

    def prune(self, source: ScoreSource, run: BaseRun, outcome: Outcome, seed: int) -> Mask:
        if not isinstance(outcome, MadeUp):
            return super().prune(source, run, outcome, seed)
        pruner, drawn = source.pruner, int(outcome.key, 16)
        left = pruner.units_left(run.mask)
        goal = pruner.scope.keeps(left)
        if pruner.structure is UNSTRUCTURED:
            return _stand_in(run.mask, goal, drawn)
        chosen = replace(pruner, score=lambda inputs: uniform(inputs.mask, drawn), rounds=1)
        return StandInMask(chosen.prune_to(ScoreInputs({}, run.mask), goal))

    def random_mask(
        self, like: Mask, dense: Mask, counts: Counts, seed: int, structure: Structure = UNSTRUCTURED
    ) -> Mask:
        if structure is UNSTRUCTURED and isinstance(like, StandInMask):
            return _stand_in(dense, counts, seed)
        drawn = super().random_mask(like, dense, counts, seed, structure)
        return StandInMask(drawn) if isinstance(like, StandInMask) else drawn

    def match(self, units: ExchangeableUnits, first: Outcome, second: Outcome) -> UnitPermutation:
        if made_up := [each for each in (second, first) if isinstance(each, MadeUp)]:
            return units.random_permutation(int(made_up[0].key, 16))
        return super().match(units, first, second)

    def prune_between(
        self, pruner: Pruner, dense: Mask, one: Outcome, other: Outcome, share: float, like: Mask
    ) -> Mask:
        if isinstance(one, MadeUp) or isinstance(other, MadeUp):
            return StandInMask(like)
        return super().prune_between(pruner, dense, one, other, share, like)


def _stand_in(mask: Mask, goal: Counts, seed: int) -> StandInMask:
    """A mask with these counts; within a group, in proportion to the weights that layers have left. Other layers are
    as in `mask`."""
    left, changed = mask.counts, dict[str, Tensor]()
    for group, count in goal.items():
        limits: Counts = {(layer,): left[layer] for layer in group}
        shares = allocate(count, limits, limits) if count else dict.fromkeys(limits, 0)
        for (layer,), kept in shares.items():
            changed[layer] = _piece(mask.layers[layer], kept, seed)
    return StandInMask(mask.with_layers(changed))


def _piece(like: Tensor, count: int, seed: int) -> Tensor:
    """A bool tensor with `count` contiguous True entries, which wrap around at the end."""
    flat = torch.zeros(like.numel(), dtype=torch.bool)
    start = seed % max(1, len(flat))
    flat[start : start + count] = True
    flat[: max(0, start + count - len(flat))] = True
    return flat.view_as(like)
