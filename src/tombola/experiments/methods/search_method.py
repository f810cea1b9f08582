"""SearchMethod: the search that a value of `[search] method` stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tombola.pruning.mask import Mask
from tombola.pruning.pruner import Pruner
from tombola.pruning.random_mask import random_mask
from tombola.pruning.scopes import Counts
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun, Run
from tombola.studies.request import RunRequest, Study
from tombola.studies.rewinding import Retrain
from tombola.studies.search import Prune
from tombola.utils.errors import InputError
from tombola.utils.frozen_model import FrozenModel
from tombola.utils.seeds import Purpose, derive


@dataclass(frozen=True)
class MethodContext:
    """What a method needs for the search of one replicate, besides the dense network's run."""

    options: Any
    """An instance of `SearchMethod.options`."""
    seed: int
    replicate: int
    levels: int
    pruner: Pruner
    prune: Prune
    retrain: Retrain
    score_inputs: Callable[[Outcome, BaseRun, int], ScoreInputs]
    """(an outcome, its run, a level) -> what the scores of that level need."""
    training_batches: Callable[[Run, int, int], Iterator[Any]]
    """(a run, the first iteration, how many) -> the batches of these iterations."""

    def derive_seed(self, purpose: Purpose, *where: int) -> int:
        """A seed of this replicate."""
        return derive(self.seed, purpose, self.replicate, *where)

    def kept_counts(self, dense: Mask) -> Counts:
        """How many weights each group keeps at level 1."""
        return self.pruner.scope.keeps(self.pruner.units_left(dense))

    def random_mask(self, dense: Mask, purpose: Purpose) -> Mask:
        """A random mask with the counts of level 1."""
        return random_mask(dense, dense, self.kept_counts(dense), self.derive_seed(purpose))


@dataclass(frozen=True)
class SearchMethod:
    """One way to find tickets."""

    name: str
    search: Callable[[MethodContext, Run], Study[list[RunRequest]]]
    """The search, given the dense network's run. Raises `InputError` for options that do not fit the training."""
    options: type[FrozenModel] | None = None
    """The method's section of the recipe."""
    extra_runs: Callable[[Any], int] = lambda options: 0  # noqa: ARG005
    """Given the options, how many runs a replicate's search requests besides its tickets; the maximum, if it
    varies."""
    runs_per_level: Callable[[Any], int] = lambda options: 0  # noqa: ARG005
    """The same for each level, that of the dense network included."""
    one_level: bool = True
    """There is one level below the dense network, and no rewinding to a later iteration."""
    rewinds: bool = False
    """Tickets are always rewound, so `rewind.method` must be "weights"."""
    mask_changes: bool = False
    """The mask changes during training, so weights are never rewound."""
    own_criterion: bool = False
    """`score`, `structure` and `rounds` have no effect."""
    count_per_layer: bool = False
    """The number of weights in each layer must be fixed, so the scope cannot be global."""
    other_networks: Callable[[MethodContext, Run], list[Run]] = lambda context, dense: []  # noqa: ARG005
    """Runs of other networks that the search trains, given the dense network's run. They are built before training,
    so that a network which cannot have a parametrization is refused."""

    @property
    def section(self) -> str:
        """The name of its section, and of the field of `Recipe`."""
        return self.name.replace("-", "_")


def spaced_iterations(option: str, begin: int, end: int, count: int, *, before_end: bool = False) -> list[int]:
    """`count` iterations, evenly spaced, the last of them at `end`; or one interval `before_end`.

    Raises `InputError`, which names the `option`, when there are too few iterations.

    >>> spaced_iterations("gradual.changes", 0, 10, 4)
    [2, 5, 8, 10]
    """
    most = max(0, end - begin - before_end)
    if count > most:
        raise InputError(f"{option}: should be at most {most} between iterations {begin} and {end}, not {count}")
    return [round(begin + (end - begin) * part / (count + before_end)) for part in range(1, count + 1)]


def iteration_within(section: str, name: str, fraction: float, dense: Run) -> int:
    """The iteration after this fraction of the training. Raises `InputError` if it is the first or the last."""
    found = round(fraction * dense.last)
    if not 0 < found < dense.last:
        raise InputError(
            f"{section}.{name}: should be within the training, which has {dense.last} iterations, not at {fraction:g}"
        )
    return found
