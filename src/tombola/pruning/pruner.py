"""Pruner: score x scope x structure -> a smaller mask, with exact counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tombola.pruning import scopes
from tombola.pruning.layers import by_layer, display_name, layer_rows
from tombola.pruning.mask import Mask
from tombola.pruning.ranking import check_no_nan, check_not_all_equal
from tombola.pruning.scopes import Counts, Scope, removes_nothing
from tombola.pruning.scores import Score
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.pruning.structures import UNSTRUCTURED, Structure, UnitStructure
from tombola.utils.errors import InputError


@dataclass(frozen=True)
class Pruner:
    """Prunes by one score, scope and structure."""

    score: Score
    scope: Scope
    structure: Structure = UNSTRUCTURED
    rounds: int = 1
    """In how many rounds one step is done, each of which scores what the one before has left."""

    def check_levels(self, dense: Mask, levels: int) -> None:
        """Raises `InputError` where the network cannot be pruned that many times."""
        unit = "weight" if self.structure is UNSTRUCTURED else "unit"
        scopes.check_levels(self.scope, self.units_left(dense), levels, unit, self._or_else)
        if isinstance(self.structure, UnitStructure) and not self.exact:
            mask = dense  # how many go at a time depends on their order; here it is random
            for level, goal in enumerate(scopes.goals(self.scope, self.units_left(dense), levels), 1):
                fewer = self.structure.keep_random(mask, goal, seed=0)
                if fewer == mask:
                    raise removes_nothing(level, self._or_else)
                mask = fewer

    def __call__(self, inputs: ScoreInputs) -> Mask:
        """The mask after one pruning step from that of `inputs`. Raises `InputError` if no more units may go."""
        left = self.units_left(inputs.mask)
        goal = self.scope.keeps(left)
        if goal == left and not self.exact:
            or_else = self._or_else and f", or {self._or_else}"
            raise InputError(f"levels: nothing more can be pruned; set fewer{or_else}")
        return self.prune_to(inputs, goal)

    def prune_to(self, inputs: ScoreInputs, goal: Counts) -> Mask:
        """The mask that keeps `goal` units of each group."""
        if self.rounds > 1:
            return self._in_rounds(inputs, goal)
        return self.structure.keep_best(self._scores(inputs, goal), inputs.mask, goal)

    def units_left(self, mask: Mask) -> Counts:
        """The number of units that each group has left."""
        return self.structure.units_left(mask, self.scope)

    @property
    def exact(self) -> bool:
        """Whether a step leaves as much as the scope says; otherwise it may leave less."""
        structure = self.structure
        return not isinstance(structure, UnitStructure) or (
            structure.cost == "units" and (structure.round_to <= 1 or all(len(g) == 1 for g in self.scope.groups))
        )

    @property
    def _or_else(self) -> str:
        """What else than the rate lets a level remove something."""
        rounded = isinstance(self.structure, UnitStructure) and self.structure.round_to > 1
        return "a smaller round_to" if rounded else ""

    def _scores(self, inputs: ScoreInputs, goal: Counts) -> dict[str, Tensor]:
        """By layer: the scores of the competing ones. Raises `InputError` for scores of the wrong shape, missing or
        NaN, or all equal in a group of which some units are to be chosen."""
        found, competing = (
            dict(self.score(inputs)),
            {name for group in goal for name in self.structure.scored_layers(group)},
        )
        scores: dict[str, Tensor] = {}
        of_kept: dict[str, Tensor] = {}
        for name, kept in inputs.mask.items():
            layers = competing.intersection(layer_rows(name, tuple(kept.shape)))
            if layers:
                scores |= by_layer({name: _checked(found.get(name), name, kept)})
            for layer in layers:
                of_kept[layer] = scores[layer].detach().cpu().masked_select(inputs.mask.layers[layer])
                check_no_nan(of_kept[layer], (layer,))
        for group, left in self.units_left(inputs.mask).items():
            if 0 < goal[group] < left:
                check_not_all_equal([of_kept[layer] for layer in self.structure.scored_layers(group)], group)
        return scores

    def _in_rounds(self, inputs: ScoreInputs, goal: Counts) -> Mask:
        """Round k of n keeps the fraction density^(k/n) of the units (Tanaka et al. 2020, section 6, algorithm 1).

        No layer becomes empty while another has more than one unit to give. SynFlow guarantees this for layers in
        sequence without biases if every round removes few weights; so a round that would empty a layer is split, with
        new scores after each step. Where the last unit of a layer still has the lowest score, the layer is protected.
        """
        mask, first, protected = inputs.mask, self.units_left(inputs.mask), set[str]()
        for k in range(1, self.rounds + 1):
            target = {group: _geometric(first[group], goal[group], k / self.rounds) for group in goal}
            while any(left > target[group] for group, left in self.units_left(mask).items()):
                fewer = self._step(inputs.masked(mask), target, protected)
                if fewer.count == mask.count:
                    break
                mask = fewer
        return mask

    def _step(self, inputs: ScoreInputs, target: Counts, protected: set[str]) -> Mask:
        """Prune towards `target`, at least one unit, and not so far that a layer becomes empty; the layer that stops
        even a single unit becomes `protected`."""
        left, scores = self.units_left(inputs.mask), self._scores(inputs, target)
        while True:
            bounded = scores | {name: torch.full(scores[name].shape, torch.inf) for name in protected}
            mask = self.structure.keep_best(bounded, inputs.mask, target)
            emptied = {*mask.empty_layers} - {*inputs.mask.empty_layers} - protected
            if not emptied:
                return mask
            if max(left[group] - target[group] for group in target) == 1:
                protected |= emptied
            target = {group: left[group] - (left[group] - target[group] + 1) // 2 for group in target}


def _checked(scores: object, name: str, kept: Tensor) -> Tensor:
    if isinstance(scores, Tensor) and scores.shape == kept.shape:
        return scores
    shape = tuple(kept.shape)
    if not isinstance(scores, Tensor):
        raise InputError(
            f"score: gives no tensor of shape {shape} for {name}: use another score, or leave the layer out with "
            f'leave_out=["{display_name(name)}"]'
        )
    raise InputError(f"score: returned a tensor of {tuple(scores.shape)} for {name}; should have shape {shape}")


def _geometric(first: int, last: int, share: float) -> int:
    """The count at this share of the way from `first` to `last` in equal ratios."""
    return last if share == 1 or not first else round(first * (max(last, 1) / first) ** share)
