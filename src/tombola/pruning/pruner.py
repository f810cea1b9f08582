"""Pruning: score x scope x structure -> a smaller mask, with exact counts."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tombola.pruning import scopes, structures
from tombola.pruning.held_weight import held_weight
from tombola.pruning.mask import Mask
from tombola.pruning.ranking import check_numbers
from tombola.pruning.scopes import Counts, Layerwise, Scope
from tombola.pruning.scores import ROUNDS, SCORES, Score
from tombola.pruning.scores.inputs import Loss, ScoreInputs, cross_entropy, repeatable
from tombola.pruning.structures import UNSTRUCTURED, Structure
from tombola.utils.errors import InputError, unknown

Density = float | Mapping[str, float]
"""The fraction that is kept, in (0, 1]; or that of some layers, by name or pattern."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pruner:
    """How a search prunes."""

    score: Score
    scope: Scope
    structure: Structure = UNSTRUCTURED
    rounds: int = 1
    """In how many rounds one pruning is done, each scoring what the one before has left; see `_in_rounds`."""

    @classmethod
    def named(
        cls,
        network: nn.Module,
        score: str | Score,
        scope: Scope,
        structure: str | structures.Heads = "weights",
        rounds: int | None = None,
    ) -> Pruner:
        """What prunes `network` by names; `rounds` are those of the score if they are not given.

        Raises `InputError` for unknown names, and where the network has no such layers or structure.
        """
        made = structures.named(structure) if isinstance(structure, str) else structure
        pruner = cls(_score(score), scope, made(network), _rounds(rounds, score))
        pruner.left(Mask.full(network))
        return pruner

    def check_rounds(self, mask: Mask, rounds: int) -> None:
        """Refuse a schedule that is bound to leave a group empty; see `tombola.pruning.scopes.check_rounds`."""
        scopes.check_rounds(mask, self.scope, rounds, None if self.structure is UNSTRUCTURED else self.left(mask))

    def __call__(self, grounds: ScoreInputs) -> Mask:
        """The smaller mask, one pruning after that of `grounds`."""
        return self.prune_to(grounds, self.scope.keeps(self.left(grounds.mask)))

    def prune_to(self, grounds: ScoreInputs, goal: Counts) -> Mask:
        """The smaller mask that leaves so many units of each group."""
        if self.rounds > 1:
            return self._in_rounds(grounds, goal)
        return self.structure.keep_best(self._scores(grounds, goal), grounds.mask, goal)

    def left(self, mask: Mask) -> Counts:
        """How many units of the structure each group has left."""
        return self.structure.left(mask, self.scope)

    def _scores(self, grounds: ScoreInputs, goal: Counts) -> dict[str, Tensor]:
        """The scores of the layers that compete. Raises `InputError` where one's own are not as `Score` says."""
        scores = dict(self.score(grounds))
        for name in (name for group in goal for name in group):
            found, shape = scores.get(name), tuple(grounds.mask[name].shape)
            if not isinstance(found, Tensor) or found.shape != shape:
                what = f"a tensor of {tuple(found.shape)}" if isinstance(found, Tensor) else "no tensor"
                raise InputError(
                    f"score: it gives {what} for {name}, where one of the weight's shape {shape} belongs"
                )
            check_numbers(found.detach().cpu()[grounds.mask[name]], (name,))
        return scores

    def _in_rounds(self, grounds: ScoreInputs, goal: Counts) -> Mask:
        """Round k of n leaves the fraction density^(k/n) of the units (Tanaka et al. 2020, section 6, algorithm 1).

        No layer becomes empty while another has more than one unit to give. SynFlow promises this of layers in a row
        without biases if every round removes little; so a round that would empty a layer is done in smaller steps,
        scoring anew after each. Beside a shortcut, or before biases, the last of a layer may still score lowest of
        all; then it is spared.
        """
        mask, first, spared = grounds.mask, self.left(grounds.mask), set[str]()
        for k in range(1, self.rounds + 1):
            aim = {group: _geometric(first[group], goal[group], k / self.rounds) for group in goal}
            while self.left(mask) != aim:
                mask = self._step(grounds.masked(mask), aim, spared)
        return mask

    def _step(self, grounds: ScoreInputs, aim: Counts, spared: set[str]) -> Mask:
        """Towards `aim`, as far as no layer becomes empty that is not `spared` already; at least one unit."""
        left, scores = self.left(grounds.mask), self._scores(grounds, aim)
        while True:
            bounded = scores | {name: torch.full(scores[name].shape, torch.inf) for name in spared}
            mask = self.structure.keep_best(bounded, grounds.mask, aim)
            emptied = {*mask.empty_layers} - {*grounds.mask.empty_layers} - spared
            if not emptied:
                return mask
            if max(left[group] - aim[group] for group in aim) == 1:
                spared |= emptied
            aim = {group: left[group] - (left[group] - aim[group] + 1) // 2 for group in aim}


def _geometric(first: int, last: int, share: float) -> int:
    """Between two counts, in equal ratios; the last where the share is 1."""
    return last if share == 1 or not first else round(first * (max(last, 1) / first) ** share)


def prune(
    network: nn.Module,
    density: Density | None = None,
    *,
    score: str | Score = "magnitude",
    scope: str = "layer",
    structure: str | structures.Heads = "weights",
    data: Iterable[Any] | None = None,
    loss: Loss = cross_entropy,
    start: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    leave_out: Sequence[str] = (),
    rounds: int | None = None,
) -> Mask:
    """Prune `network` as it is, in place: pruned weights become zero. Returns the mask, which `hold` keeps.

    `density` is the fraction of weights that is kept, in (0, 1], of each layer or of all together as the `scope` says
    (`layer`, `global`, `erk`); of n weights round((1 - density) n) go. A table gives single layers their own, by name
    or pattern; others are left alone. So are biases, normalisation and layers in `leave_out`, none of which count.
    With a `structure` (`neurons`, `channels`, `heads` or `Heads(...)`, `blocks:4x4`) it is the fraction of those; for
    one like `2:4`, which has a density of its own, it may be missing.

    `score` is one of `SCORES` or any function of `ScoreInputs`. Scores that look at examples take `data`: batches
    `(x, y)`, or whatever `loss(network, batch)` takes, on the network's device. Those that look at initial weights
    take `start`, a `state_dict`; those that draw take `seed`. `rounds` is how often the score is taken anew on the
    way (`synflow`: 100).

    The network is scored as a copy, in evaluation mode but for batch norm that has not seen a batch; of its own it
    loses nothing but the weights. What a hold on it has pruned counts as gone, and the density is still that of the
    whole network. Layers that end up empty are warned of. Raises `InputError` in one line, before anything is
    changed, for whatever cannot be.

    >>> mask = prune(nn.Linear(10, 5), 0.3)
    >>> mask.count
    15
    """
    full = Mask.full(network)
    if not full:
        raise InputError("model: it has no linear or convolutional layer to prune")
    chosen = _scope(density, scope, structure, full.shapes, leave_out)
    pruner = Pruner.named(network, score, chosen, structure, rounds)
    parameters = dict(network.named_parameters())
    held = _held(network, full)
    goal = chosen.keeps(pruner.left(full))
    if held != full:
        _check_held(pruner, held, goal)
    grounds = ScoreInputs(
        weights={name: parameters[name].detach() for name in full},
        mask=held,
        seed=seed,
        _start=None if start is None else lambda: _initial(start, full),
        _network=lambda: copy.deepcopy(network),
        _batches=None if data is None else repeatable(data),
        loss=loss,
    )
    mask = pruner.prune_to(grounds, goal)
    mask.apply_(network)
    if empty := [name.removesuffix(".weight") for name in mask.empty_layers]:
        more = f" and {len(empty) - 5} more layers" if len(empty) > 5 else ""
        _log.warning("no weight is left in %s%s", ", ".join(empty[:5]), more)
    return mask


def _held(network: nn.Module, full: Mask) -> Mask:
    """Which weights a hold on the network, or on parts of it, has left; all where there is none."""
    left = dict(full)
    for name in full:
        path, _, own = name.rpartition(".")
        weight = held_weight(network.get_submodule(path), own)
        if weight is not None:
            left[name] = weight.kept
    return Mask(left)


def _check_held(pruner: Pruner, held: Mask, goal: Counts) -> None:
    """Refuse what cannot be reached from what the hold has left."""
    if isinstance(pruner.structure, structures.NMPattern):
        raise InputError(
            f"structure: {pruner.structure} is of whole layers; first tombola.pruning.hold.release the network's hold"
        )
    for group, left in pruner.left(held).items():
        if left < goal[group]:
            of = group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}"
            raise InputError(f"density: {goal[group]} are to stay of {of}, and the network's hold has left {left}")


def _score(score: str | Score) -> Score:
    if callable(score):
        return score
    if score not in SCORES:
        raise unknown("score", score, SCORES)
    return SCORES[score]


def _rounds(rounds: int | None, score: str | Score) -> int:
    if rounds is None:
        return ROUNDS.get(score, 1) if isinstance(score, str) else 1
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise InputError(f"rounds: should be a whole number, at least 1, not {rounds!r}")
    return rounds


def _scope(
    density: Density | None,
    name: str,
    structure: object,
    shapes: Mapping[str, tuple[int, ...]],
    leave_out: Sequence[str],
) -> Scope:
    if name == "erk" and structure != "weights":
        what = f'"{structure}"' if isinstance(structure, str) else "heads"
        raise InputError(f'scope: "erk" goes with structure "weights", not {what}')
    pattern = structures.pattern_of(structure) if isinstance(structure, str) else None
    if pattern is not None:
        share = pattern[0] / pattern[1]
        if density is not None and (isinstance(density, Mapping) or abs(_checked(density) - share) > 1e-6):
            raise InputError(f'density: structure "{structure}" leaves {share:g} of every layer, not {density}')
        density = share
    if density is None:
        raise InputError("density: how much is kept should be given, a number in (0, 1]")
    if isinstance(leave_out, str):
        raise InputError(f'leave_out: should be a list of names, ["{leave_out}"]')
    if not isinstance(density, Mapping):
        return scopes.scope(name, shapes, 1 - _checked(density), leave_out=leave_out)
    if name != "layer":
        raise InputError(f'density: one for each layer goes with scope "layer", not "{name}"')
    rates = {pattern: 1 - _checked(share, f' of "{pattern}"') for pattern, share in density.items()}
    among = scopes.scope(name, shapes, 0, leave_out=leave_out).groups
    return Layerwise({n: rate for n, rate in scopes.by_name(rates, shapes, "density").items() if (n,) in among})


def _checked(density: object, of: str = "") -> float:
    if isinstance(density, bool) or not isinstance(density, int | float) or not 0 < density <= 1:
        raise InputError(f"density{of}: should be a number greater than 0 and at most 1, not {density!r}")
    return density


def _initial(start: Mapping[str, Tensor], full: Mask) -> Mapping[str, Tensor]:
    for name, shape in full.shapes.items():
        if name not in start or tuple(start[name].shape) != shape:
            raise InputError(f"start: should be a state_dict of this network; {name} of shape {shape} is not in it")
    return start
