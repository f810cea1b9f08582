"""Detects lines whose two ends are the same training, although their seeds differ."""

from __future__ import annotations

from tombola.experiments.copies import Sketch, are_alike, sketch, tolerances
from tombola.pruning.mask import State
from tombola.runs.outcome import Outcome
from tombola.studies.request import RunRequest

ADVICE = "It should draw its batches from the global random states, or use torch.initial_seed()."


class LineEnds:
    """Compares the ends of lines that join trainings with different seeds."""

    def __init__(self) -> None:
        self._ends: dict[tuple[object, ...], Sketch] = {}

    def warning(self, study: int, request: RunRequest, start: State, outcome: Outcome) -> str:
        """Why the line that ends at this training, from `start`, shows nothing. Empty if it does show something, if
        its other end is not known yet, or if the request is for something else."""
        point, mask = request.point, request.run.mask
        if point is None or point.tickets == "predecessor" or not outcome.final or outcome.measures.diverged:
            return ""
        place = study, request.level, request.draw, point.k, point.tickets
        found = sketch(outcome.final, mask, tolerances(mask, start, outcome.final))
        self._ends[*place, point.share] = found
        other = self._ends.get((*place, 1 - point.share))
        if not found or other is None or not are_alike(found, other):
            return ""
        return (
            f"stability: in replicate {study}, at level {request.level}, train ends in nearly the same weights with "
            f"another seed: barriers between them show nothing. {ADVICE}"
        )
