"""Early-bird tickets as a search method, and its options."""

from __future__ import annotations

from pydantic import Field, model_validator

from tombola.experiments.methods.search_method import MethodContext, SearchMethod, spaced_iterations
from tombola.runs.run import Run
from tombola.studies.early_bird import EarlyBirdPlan, early_bird_search
from tombola.studies.request import RunRequest, Study
from tombola.utils.errors import InputError
from tombola.utils.frozen_model import FrozenModel


class EarlyBirdSection(FrozenModel):
    """`[early_bird]`: masks are drawn while the dense network trains, until they stop changing."""

    draws: int = Field(default=20, ge=1)
    """The maximum number of masks drawn, evenly spaced; in the paper, one per epoch."""
    window: int = Field(default=5, ge=2)
    """How many consecutive masks must agree."""
    tolerance: float = Field(default=0.1, gt=0, lt=1)
    """The largest distance between any two of these masks: the fraction of weights, or units, that differ."""
    go_on: bool = False
    """Whether the ticket resumes from the weights that its mask was drawn from, as in the paper."""

    @model_validator(mode="after")
    def _check(self) -> EarlyBirdSection:
        if self.draws < self.window:
            raise ValueError(f"draws should be at least window, {self.window}, not {self.draws}")
        return self


def _early_bird(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    options: EarlyBirdSection = context.options
    keeps, sizes = context.kept_counts(dense.mask), context.pruner.units_left(dense.mask)
    pruned = {group: size for group, size in sizes.items() if keeps[group] < size}
    differing = sum(2 * min(keeps[group], size - keeps[group]) for group, size in pruned.items())
    largest = round(differing / max(1, sum(pruned.values())), 9)
    if context.pruner.exact and largest <= options.tolerance:
        raise InputError(
            f"early_bird.tolerance: should be less than {largest:.2g}, the largest distance between any two masks "
            f"of these counts, not {options.tolerance:g}"
        )
    at = spaced_iterations("early_bird.draws", 0, dense.last, options.draws, before_end=options.go_on)
    plan = EarlyBirdPlan(at, options.window, options.tolerance, options.go_on, [*pruned], context.pruner.structure)
    return early_bird_search(dense, plan, context.prune)


# The last segment of the search is requested twice.
EARLY_BIRD = SearchMethod("early-bird", _early_bird, EarlyBirdSection, lambda options: options.draws + 1)
