"""Sparse training that repeatedly drops some weights of a mask and regrows others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from pydantic import Field
from torch import Tensor

from tombola.experiments.methods.search_method import MethodContext, spaced_iterations
from tombola.pruning.mask import Mask
from tombola.pruning.scores.growth import gradient
from tombola.pruning.scores.weights import magnitude
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.dynamic_masks import SegmentScores, UpdateMask, cosine_decay, dynamic_search
from tombola.studies.request import RunRequest, Study
from tombola.utils.frozen_model import FrozenModel
from tombola.utils.seeds import Purpose


class UpdateSection(FrozenModel):
    """Options of sparse training with mask updates."""

    fraction: float = Field(default=0.3, gt=0, le=1)
    """The fraction of each layer's weights that one update replaces: ζ of SET, α of RigL at the beginning."""
    end: float = Field(default=1.0, gt=0, le=1)
    """The fraction of the training after which the mask is fixed."""
    changes: int = Field(default=20, ge=1)
    """The number of mask updates, evenly spaced."""


def update_search(
    section: str,
    context: MethodContext,
    dense: Run,
    fraction: Callable[[int], float],
    grow: SegmentScores,
    start: Mask | None = None,
    update: UpdateMask | None = None,
) -> Study[list[RunRequest]]:
    """The search of the method whose options are in `section`; by default it starts from a random mask."""
    options: UpdateSection = context.options
    end = round(options.end * dense.last)
    at = spaced_iterations(f"{section}.changes", 0, end, options.changes, before_end=True)
    start = start or context.random_mask(dense.mask, Purpose.SPARSE_START)
    return dynamic_search(dense, start, at, fraction, magnitudes(context), grow, update)


def magnitudes(context: MethodContext) -> SegmentScores:
    """The scores by which weights are dropped."""
    return lambda outcome, segment, _k: magnitude(context.score_inputs(outcome, segment, 1))


def gradients(context: MethodContext) -> SegmentScores:
    """Scores by which weights are regrown: those of the batch that comes next."""

    def grow(outcome: Outcome, segment: Run, k: int) -> Mapping[str, Tensor]:
        inputs = context.score_inputs(outcome, segment, 1)
        return gradient(replace(inputs, _batches=lambda: context.training_batches(segment, k, 1)))

    return grow


def decaying_fraction(options: UpdateSection, dense: Run) -> Callable[[int], float]:
    """`fraction`, decayed to 0 at `end` along half a cosine."""
    return cosine_decay(options.fraction, round(options.end * dense.last))
