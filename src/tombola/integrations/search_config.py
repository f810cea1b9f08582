"""Search: what an iterative search within one training is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tombola.pruning import scopes
from tombola.pruning.mask import Mask
from tombola.pruning.pruner import Pruner
from tombola.pruning.scores import SCORES, Score
from tombola.utils.duration import Duration
from tombola.utils.errors import InputError, unknown


@dataclass(frozen=True)
class SearchConfig:
    """Train, prune, rewind, and again: how often, by how much, after how long, and to where.

    Raises `InputError` for values that would not work with any network.
    """

    levels: int
    """How many prunings; level 0 is the dense network."""
    every: Duration | str
    """How long the dense network trains before it is pruned."""
    rate: float | None = None
    """The fraction of the weights left that each pruning removes; 0.2 where neither this nor `density` is given."""
    density: float | None = None
    """Instead: the fraction of weights left after all levels."""
    rewind: Duration | str = "0it"
    """Where each level goes back to: from there it trains to where the dense network was pruned."""
    scope: str = "layer"
    """See `tombola.pruning.scopes`."""
    score: str | Score = "magnitude"
    """A name in `tombola.pruning.scores.SCORES`, or a function, that looks at nothing but trained and initial
    weights."""
    leave_out: Sequence[str] = ()
    """Layers that are not pruned, by name or pattern."""
    seed: int = 0
    """Of scores that draw."""

    def __post_init__(self) -> None:
        for name in ("every", "rewind"):
            try:
                object.__setattr__(self, name, Duration.parse(getattr(self, name)))
            except ValueError as error:
                raise InputError(f"{name}: {error}, not {getattr(self, name)!r}") from None
        if self.levels < 1:
            raise InputError(f"levels: should be at least 1, not {self.levels!r}")
        scopes.round_rate(self.rate, self.density, self.levels)
        if isinstance(self.score, str) and self.score not in SCORES:
            raise unknown("score", self.score, SCORES)

    def iterations(self, per_epoch: int | None) -> tuple[int, int]:
        """Where in a training each level begins and ends, when an epoch has so many iterations (None: unknown).

        Raises `InputError` where that is unknown and matters, and where a level would train nothing.
        """
        found = []
        for name in ("rewind", "every"):
            length: Any = getattr(self, name)
            if length.epochs and per_epoch is None:
                raise InputError(f'{name}: say it in iterations ("500it"), because this data has no known length')
            found.append(length.epochs * (per_epoch or 0) + length.iterations)
        begin, end = found
        if begin >= end:
            raise InputError(f"rewind: should be before the end of a level, {self.every}, not {self.rewind}")
        return begin, end

    def pruner(self, mask: Mask) -> Pruner:
        """How a network with this dense mask is pruned. Raises `InputError` where it cannot be, so often."""
        if not mask:
            raise InputError("this network has no linear or convolutional layer to prune")
        rate = scopes.round_rate(self.rate, self.density, self.levels)
        scope = scopes.scope(self.scope, mask.shapes, rate, leave_out=self.leave_out)
        scopes.check_rounds(mask, scope, self.levels)
        return Pruner(SCORES[self.score] if isinstance(self.score, str) else self.score, scope)

    @property
    def description(self) -> dict[str, Any]:
        """The search as JSON values."""
        return {
            "levels": self.levels,
            "every": str(self.every),
            "rate": self.rate,
            "density": self.density,
            "rewind": str(self.rewind),
            "scope": self.scope,
            "score": self.score if isinstance(self.score, str) else getattr(self.score, "__qualname__", "?"),
            "leave_out": list(self.leave_out),
            "seed": self.seed,
        }
