"""Gradual pruning as a search method, and its options."""

from __future__ import annotations

from pydantic import Field, model_validator

from tombola.experiments.methods.search_method import MethodContext, SearchMethod, spaced_iterations
from tombola.pruning.mask import Mask
from tombola.pruning.scopes import Counts
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.dynamic_masks import gradual_search
from tombola.studies.request import RunRequest, Study
from tombola.utils.errors import InputError
from tombola.utils.frozen_model import FrozenModel


class GradualSection(FrozenModel):
    """`[gradual]`: pruning in small steps during one training."""

    begin: float = Field(default=0.0, ge=0, lt=1)
    """When pruning begins, as a fraction of the training."""
    end: float = Field(default=0.75, gt=0, lt=1)
    """When pruning ends, as a fraction of the training."""
    changes: int = Field(default=20, ge=1)
    """The number of pruning steps, evenly spaced."""

    @model_validator(mode="after")
    def _check(self) -> GradualSection:
        if self.begin >= self.end:
            raise ValueError(f"begin should be before end, {self.end:g}, not {self.begin:g}")
        return self


def _gradual(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    options: GradualSection = context.options
    length, end = dense.last, round(options.end * dense.last)
    if end >= length:
        raise InputError(
            f"gradual.end: should be early enough to train the final mask, not {options.end:g} of {length} iterations"
        )

    def prune(outcome: Outcome, segment: Run, counts: Counts) -> Mask:
        return context.pruner.prune_to(context.score_inputs(outcome, segment, 1), counts)

    at = spaced_iterations("gradual.changes", round(options.begin * length), end, options.changes)
    return gradual_search(dense, at, context.pruner.units_left(dense.mask), context.kept_counts(dense.mask), prune)


GRADUAL = SearchMethod("gradual", _gradual, GradualSection, lambda options: options.changes, mask_changes=True)
