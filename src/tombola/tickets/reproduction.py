"""Whether the recorded results of a run are reproduced, up to rounding."""

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

MIN_TOLERANCE = 0.01
"""An accuracy (as a fraction) or a loss this close to the recorded one always counts as reproduced."""

CONFIDENCE = 0.99
"""The confidence of the statement that a figure was not reproduced; see `tolerance`."""

EXACT_FIGURES = ("diverged", "iterations")
"""The figures that rounding does not change."""


def tolerance(values: Sequence[float], least: float = MIN_TOLERANCE) -> float:
    """The largest difference that counts as reproduced, if other batch orders gave these `values`.

    Other machines, engines and versions round differently, and training amplifies this until two trainings differ as
    much as with two batch orders. So the difference of two draws is allowed (Student's t).
    """
    if len(values) < FEWEST_REPLICATES:
        return least
    spread = float(np.std(values, ddof=1)) * 2**0.5
    return max(least, float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * spread)


def tolerances(recorded: Measures, others: Sequence[Measures], step: int, relative: bool = False) -> dict[str, float]:
    """The `tolerance` of each recorded figure, from the results of other batch orders. `step` is the number of
    iterations between evaluations. With `relative`, the minimum tolerance is a fraction of the figure."""
    finished = [measures for measures in others if not measures.diverged]
    least_of = {name: MIN_TOLERANCE * (abs(value) if relative else 1) for name, value in recorded.figures.items()}
    if recorded.stop_iteration is not None:
        least_of = {"stop_iteration": float(step), **least_of}
    found = {}
    for name, least in least_of.items():
        values = [value for measures in finished if (value := measures[name]) is not None]
        found[name] = tolerance(values, least)
    return found


@dataclass(frozen=True)
class FigureReproduction:
    """The recorded figures of a run, and the figures computed here."""

    recorded: Measures
    here: Measures
    tolerances: Mapping[str, float]
    """The difference that rounding explains, by figure; figures without one must be equal."""
    judged: str = "test_accuracy_at_stop"
    """The name of the judged figure."""

    @property
    def difference(self) -> float | None:
        """The judged figure computed here minus the recorded one; None if a run diverged."""
        return self._difference(self.judged)

    @property
    def exact(self) -> bool:
        """Whether all figures are bitwise equal."""
        return self.here == self.recorded

    @property
    def off(self) -> list[str]:
        """The figures that differ by more than rounding."""
        wrong = [name for name in EXACT_FIGURES if getattr(self.here, name) != getattr(self.recorded, name)]
        differences = {name: self._difference(name) for name in self.tolerances}
        return wrong + [name for name, d in differences.items() if d is None or abs(d) > self.tolerances[name]]

    @property
    def reproduced(self) -> bool:
        """Whether all figures are equal up to rounding."""
        return self.exact or not self.off

    def _difference(self, name: str) -> float | None:
        here, recorded = self.here[name], self.recorded[name]
        return None if here is None or recorded is None else float(here - recorded)


@dataclass(frozen=True)
class WeightReproduction:
    """The trained weights in a file, compared with its provenance and with the weights trained here."""

    figure: float | None
    """The figure of the weights in the file, measured here; None if they are not all finite, or if it cannot be
    measured."""
    apart: float
    """Their `relative_distance` from the weights that the recorded run ends with here."""
    same: bool
    """Whether they equal the weights trained here, exactly or rounded to one of `PRECISIONS`."""

    def reproduced(self, recorded: float | None, exact: bool, least: float = MIN_TOLERANCE) -> bool:
        """Whether the weights match the `recorded` figure. If all figures were reproduced `exact`ly, or if the
        weights have no figure, they must be the `same`; otherwise their figure must be within `least` of the recorded
        one."""
        if exact or recorded is None:
            return self.same
        return self.figure is not None and abs(self.figure - recorded) <= least


def compare_weights(trained: State, here: State, figure: float | None) -> WeightReproduction:
    """Compare the `trained` weights in a file, which have this figure, with those trained `here`."""
    precisions = (
        {name: t.to(precision).to(t.dtype) if t.is_floating_point() else t for name, t in here.items()}
        for precision in PRECISIONS.values()
    )
    same = any(relative_distance(rounded, trained) <= torch.finfo(torch.float32).eps for rounded in precisions)
    return WeightReproduction(figure, relative_distance(trained, here), same)


def relative_distance(one: State, other: State) -> float:
    """The largest distance of two tensors with the same name, relative to the norm of the first. Infinite if names,
    shapes or integers differ, or if a value is not finite."""
    if {name: tensor.shape for name, tensor in one.items()} != {name: tensor.shape for name, tensor in other.items()}:
        return math.inf
    return max((_tensor_distance(one[name], other[name]) for name in one), default=0.0)


def _tensor_distance(one: torch.Tensor, other: torch.Tensor) -> float:
    if not one.is_floating_point():
        return 0.0 if torch.equal(one, other) else math.inf
    distance = float(torch.linalg.vector_norm(one.double() - other.double()))
    length = float(torch.linalg.vector_norm(one.double()))
    relative = distance / length if length else float(distance > 0)
    return relative if math.isfinite(relative) else math.inf
