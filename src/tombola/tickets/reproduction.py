"""Reproduced: does what a record says of a run come again, but for rounding?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import stdtrit  # scipy.stats takes a second longer to import

from tombola.pruning.mask import State
from tombola.runs.outcome import Measures
from tombola.stats.verdict import FEWEST_REPLICATES
from tombola.tickets.file_format import PRECISIONS

LEAST_TOLERANCE = 0.01
"""An accuracy this near to the recorded one, as a fraction of the examples, always counts as it; a loss likewise."""

SURE = 0.99
"""How sure it must be that a figure that did not come again is not another draw of the same; see `tolerance`."""

EXACTLY = ("diverged", "iterations")
"""Figures that no rounding changes."""

NEARLY = tuple(name for name in Measures.model_fields if name not in EXACTLY)
"""Those that it does."""


def tolerance(values: Sequence[float], least: float = LEAST_TOLERANCE) -> float:
    """How far a figure may be from the recorded one and still be called reproduced, after other orders of batches
    gave these `values`; at least `least`.

    Other machines, engines and versions round otherwise, and trainings amplify that until they are as far apart as
    trainings in another order. So two such are allowed the difference of two draws: Student's t.
    """
    if len(values) < FEWEST_REPLICATES:
        return least
    spread = float(np.std(values, ddof=1)) * 2**0.5
    return max(least, float(stdtrit(len(values) - 1, (1 + SURE) / 2)) * spread)


def tolerances(others: Sequence[Measures], step: int) -> dict[str, float]:
    """By figure, how far it may be off, after other orders of batches gave these; `step` is how many iterations lie
    between evaluations."""
    alive = [measures for measures in others if not measures.diverged]
    least = dict.fromkeys(NEARLY, LEAST_TOLERANCE) | {"stop_iteration": float(step)}
    return {name: tolerance([getattr(measures, name) for measures in alive], least[name]) for name in NEARLY}


@dataclass(frozen=True)
class FigureReproduction:
    """What the record says of a run, and what came of it here."""

    recorded: Measures
    here: Measures
    tolerances: Mapping[str, float]
    """By figure, how far apart they may be by rounding; the others must be the same."""

    @property
    def difference(self) -> float | None:
        """Of test accuracy at early stop, here minus recorded; None where it diverged."""
        return self._difference("test_accuracy_at_stop")

    @property
    def exact(self) -> bool:
        """Whether every figure is the same to the bit."""
        return self.here == self.recorded

    @property
    def off(self) -> list[str]:
        """The figures that are not the same, not even but for rounding."""
        wrong = [name for name in EXACTLY if getattr(self.here, name) != getattr(self.recorded, name)]
        differences = {name: self._difference(name) for name in NEARLY}
        return wrong + [name for name, d in differences.items() if d is None or abs(d) > self.tolerances[name]]

    @property
    def reproduced(self) -> bool:
        """Whether they are the same but for rounding."""
        return self.exact or not self.off

    def _difference(self, name: str) -> float | None:
        here, recorded = getattr(self.here, name), getattr(self.recorded, name)
        return None if here is None or recorded is None else float(here - recorded)


@dataclass(frozen=True)
class WeightReproduction:
    """The trained weights in a file, held against its record and against those that came here."""

    accuracy: float | None
    """Theirs on the test set, here; None where they are not all finite."""
    apart: float
    """How far they are from those that the recorded run ends with here; see `relative_distance`."""
    same: bool
    """Whether they are those, as they are or rounded to a precision that files have."""

    def reproduced(self, recorded: Measures, exact: bool) -> bool:
        """Whether they are those of the record. Where its figures came again `exact`ly, they must be the `same`;
        elsewhere they have the recorded accuracy at the end of training. That is within a point, whatever the spread:
        they are only evaluated, and nothing amplifies how that is rounded."""
        if self.accuracy is None or recorded.test_accuracy is None:
            return False
        return self.same if exact else abs(self.accuracy - recorded.test_accuracy) <= LEAST_TOLERANCE


def compare_weights(trained: State, here: State, accuracy: float | None) -> WeightReproduction:
    """The `trained` weights in a file, of this accuracy on the test set, and those that came `here`."""
    precisions = (
        {name: t.to(precision).to(t.dtype) if t.is_floating_point() else t for name, t in here.items()}
        for precision in PRECISIONS.values()
    )
    same = any(relative_distance(rounded, trained) <= torch.finfo(torch.float32).eps for rounded in precisions)
    return WeightReproduction(accuracy, relative_distance(trained, here), same)


def finite(state: State) -> bool:
    """Whether all of it is numbers."""
    return all(bool(tensor.isfinite().all()) for tensor in state.values())


def relative_distance(one: State, other: State) -> float:
    """The distance of two states: of the tensor that is furthest off, relative to its length in the first. Infinite
    where names, shapes, integers or what is not a number differ."""
    if {name: tensor.shape for name, tensor in one.items()} != {name: tensor.shape for name, tensor in other.items()}:
        return math.inf
    return max((_apart(one[name], other[name]) for name in one), default=0.0)


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    if not one.is_floating_point():
        return 0.0 if torch.equal(one, other) else math.inf
    distance = float(torch.linalg.vector_norm(one.double() - other.double()))
    length = float(torch.linalg.vector_norm(one.double()))
    relative = distance / length if length else float(distance > 0)
    return relative if math.isfinite(relative) else math.inf
