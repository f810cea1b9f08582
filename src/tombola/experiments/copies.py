"""Copies: trainings of different replicates that are the same training."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from tombola.pruning.mask import Mask, State

TOLERANCE = 0.01
"""Trainings are copies if their weights differ by less than this fraction of the change in training. Rounding, or
initial weights with little effect, make such differences; other batches make larger ones."""

SUMS = 8
"""The dimensions of a projection."""

ADVICE = (
    "Either train sets its own seed (let it use torch.initial_seed()), or nothing in it is random and the model is "
    "one network (give a function that makes it)."
)


def tolerances(prunable: Iterable[str], start: State, final: State) -> dict[str, float]:
    """The names of the tensors by which trainings are compared, each with the distance at which it counts as equal.

    These are the prunable weights that the training from `start` to `final` changed. If it changed none, they are all
    tensors that it changed; if it changed nothing, the prunable weights."""
    changes = {
        name: float(torch.linalg.vector_norm(tensor.double() - start[name].double()))
        for name, tensor in final.items()
        if tensor.is_floating_point() and name in start and start[name].shape == tensor.shape
    }
    changed = {name: change for name, change in changes.items() if change}
    names = [name for name in prunable if name in changes]
    compared = [name for name in names if name in changed] or [*changed] or names
    return {name: TOLERANCE * changes[name] for name in compared}


def sketch(final: State, mask: Mask, tolerated: Mapping[str, float]) -> dict[str, tuple[float, ...]]:
    """The sketch by which a training that ended with `final` is compared: for each tensor, the distance at which it
    counts as equal, and a random projection to `SUMS` dimensions, which approximately preserves distances.

    `tolerated` are the `tolerances` of the dense training; with fewer weights, distances are shorter."""
    found = {}
    for name in tolerated.keys() & final.keys():
        left = float(mask[name].double().mean()) if name in mask else 1.0
        found[name] = (tolerated[name] * math.sqrt(left), *_projected(final[name]))
    return found


def _projected(tensor: Tensor) -> list[float]:
    """Sums of the entries with random signs, the same for all tensors of one size."""
    values, generator = tensor.double().flatten(), torch.Generator().manual_seed(0)
    signs = (torch.randint(2, values.shape, generator=generator, dtype=torch.bool) for _ in range(SUMS))
    return [float(torch.where(positive, values, -values).sum()) / math.sqrt(SUMS) for positive in signs]


Sketch = Mapping[str, tuple[float, ...]]
"""See `sketch`."""


class Copies:
    """Finds the replicates with a training that ended in almost exactly the same weights as a training of another
    replicate. Such replicates are not independent evidence."""

    def __init__(self) -> None:
        self._sketches: defaultdict[int, dict[int, Sketch]] = defaultdict(dict)  # by level and replicate
        self._found: set[int] = set()

    def add(self, level: int, replicate: int, found: Sketch) -> None:
        """Compare the sketch of a ticket with the others of its level."""
        others = self._sketches[level]
        if alike := [other for other, theirs in others.items() if found and are_alike(found, theirs)]:
            self._found |= {replicate, *alike}
        others[replicate] = found

    @property
    def replicates(self) -> list[int]:
        """The replicates found so far."""
        return sorted(self._found)


def are_alike(one: Sketch, other: Sketch) -> bool:
    """Whether two trainings of one mask ended in nearly the same weights."""
    if one.keys() != other.keys():
        return False
    pairs = ((ours, other[name]) for name, ours in one.items())
    return all(math.dist(ours[1:], theirs[1:]) <= max(ours[0], theirs[0]) for ours, theirs in pairs)


def copies_text(replicates: Iterable[int]) -> str:
    """Why nothing is tested, and what to do; empty if there are no copies."""
    named = ", ".join(map(str, replicates))
    return (
        named and f"Replicates {named} ended in nearly the same weights: they are copies, and prove nothing. {ADVICE}"
    )
