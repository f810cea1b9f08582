"""SearchConfig: the options of an iterative search within one training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tombola.experiments.custom_config import CustomConfig, custom_config, described_search, experiment_name
from tombola.pruning.options import PruningOptions
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.pruner import Pruner
from tombola.pruning.scores import Score
from tombola.pruning.structures import Heads
from tombola.pruning.structures.unit_structure import Cost
from tombola.pruning.structures.units import GroupScore
from tombola.utils.duration import Duration
from tombola.utils.errors import InputError
from tombola.utils.model_inputs import Inputs
from tombola.utils.seeds import check_seed


@dataclass(frozen=True)
class SearchConfig:
    """When and how the network is pruned, and where it is rewound to. Raises `InputError` for invalid values."""

    levels: int
    """How many times the network is pruned; level 0 is the dense network."""
    every: Duration | str
    """How long the dense network trains before it is pruned."""
    rate: float | None = None
    """The fraction of the kept weights that each level prunes; 0.2 if neither this nor `density` is given."""
    density: float | None = None
    """Instead of `rate`: the fraction of weights kept after all levels."""
    rewind: Duration | str = "0it"
    """The rewinding point: each level trains from there to where the dense network was pruned."""
    scope: str = "layer"
    """See `tombola.pruning.scopes`."""
    score: str | Score = "magnitude"
    """A name in `tombola.pruning.scores.SCORES`, or a function; it may use only trained and initial weights."""
    leave_out: Sequence[str] = ()
    """Layers that are not pruned, by name or pattern."""
    seed: int = 0
    """The seed of random scores."""
    include: Sequence[str] = ()
    """Further parameters to prune, by name or pattern; see `tombola.prunable`."""
    structure: str | Heads = "weights"
    """What is pruned as a whole; this and the options below are those of `tombola.prune`."""
    group_score: GroupScore = "mean"
    round_to: int = 1
    cost: Cost = "units"
    example: Inputs | None = None

    def __post_init__(self) -> None:
        for name in ("every", "rewind"):
            try:
                object.__setattr__(self, name, Duration.parse(getattr(self, name)))
            except ValueError as error:
                raise InputError(f"{name}: {error}, not {getattr(self, name)!r}") from None
        check_seed(self.seed)
        _ = self.options

    @property
    def options(self) -> PruningOptions:
        """How each level is pruned. Raises `InputError` for invalid values."""
        return PruningOptions(
            levels=self.levels,
            rate=self.rate,
            density=self.density,
            scope=self.scope,
            leave_out=self.leave_out,
            include=self.include,
            score=self.score,
            structure=self.structure,
            group_score=self.group_score,
            round_to=self.round_to,
            cost=self.cost,
        )

    def iterations(self, steps_per_epoch: int | None) -> tuple[int, int]:
        """The iterations at which each level begins and ends. `steps_per_epoch` is None if unknown.

        Raises `InputError` if it is unknown but needed, and for levels without any iteration.
        """
        found = []
        for name in ("rewind", "every"):
            length: Any = getattr(self, name)
            if length.epochs and steps_per_epoch is None:
                raise InputError(f'{name}: should be in iterations ("500it"), because the data loader has no length')
            found.append(length.epochs * (steps_per_epoch or 0) + length.iterations)
        begin, end = found
        if begin >= end:
            raise InputError(f"rewind: should be before the end of a level, {self.every}, not {self.rewind}")
        return begin, end

    def pruner(self, prunable: PrunableNetwork) -> Pruner:
        """The pruner of a network. Raises `InputError` if it cannot be pruned that many times."""
        pruner = self.options.pruner(prunable)
        pruner.check_levels(prunable.dense, self.levels)
        return pruner

    def recipe(self, model: str, train: str) -> CustomConfig:
        """The configuration of this search, with the import paths of the network's class and of what trains it."""
        return custom_config(
            {
                "name": experiment_name(model.rpartition(":")[2]),
                "replicates": 1,
                "seed": int(self.seed),
                "search": described_search(self.options, one_shot=False),
                "rewind": {"to": str(self.rewind)},
                "functions": {"model": model, "train": train},
            }
        )

    @property
    def description(self) -> dict[str, Any]:
        """The options as JSON values, for checkpoints."""
        given = {
            "structure": described_search(self.options, one_shot=False)["structure"],
            "group_score": self.group_score,
            "round_to": int(self.round_to),
            "cost": self.cost,
        }
        defaults = {"structure": "weights", "group_score": "mean", "round_to": 1, "cost": "units"}
        return {
            "levels": self.levels,
            "every": str(self.every),
            "rate": self.rate,
            "density": self.density,
            "rewind": str(self.rewind),
            "scope": self.scope,
            "score": self.score if isinstance(self.score, str) else getattr(self.score, "__qualname__", "?"),
            "leave_out": list(self.leave_out),
            "include": list(self.include) or None,  # as in checkpoints from before this option
            "seed": self.seed,
        } | {name: value for name, value in given.items() if value != defaults[name]}  # the same
