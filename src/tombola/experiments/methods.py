"""Search methods: the values of `[search] method`. To add one, write its search and name it in `METHODS`; its options
are a section of the recipe, and a field of `Recipe`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pydantic import Field, model_validator

from tombola.experiments.search_method import MethodContext, SearchMethod, spaced_iterations
from tombola.experiments.sparse_training_methods import SPARSE_TRAINING
from tombola.experiments.supermask_methods import SUPERMASK_METHODS
from tombola.pruning.mask import Mask
from tombola.pruning.normalisation import running_norms
from tombola.pruning.scopes import Counts
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.dynamic_masks import gradual_search
from tombola.studies.early_bird import EarlyBirdPlan, early_bird_search
from tombola.studies.request import RunRequest, Study
from tombola.studies.search import iterative_search, one_shot_search
from tombola.studies.swamp import Particles, swamp_search
from tombola.utils.duration import ZERO, Duration
from tombola.utils.errors import InputError
from tombola.utils.frozen_model import FrozenModel
from tombola.utils.seeds import Purpose
from tombola.zoo.models import build


def _iterative(
    context: MethodContext, dense: Run, search: Callable[..., Study[list[RunRequest]]] = iterative_search
) -> Study[list[RunRequest]]:
    return search(dense, context.levels, context.prune, context.retrain)


class SwampSection(FrozenModel):
    """`[swamp]`: masks are found by pruning the average of several trainings of the same mask."""

    particles: int = Field(default=4, ge=1)
    """The number of trainings, which differ in batch order."""
    begin: float = Field(default=0.75, ge=0, lt=1)
    """The fraction of the training after which weights are averaged."""
    points: int = Field(default=5, ge=1)
    """The number of iterations at which the weights of a particle are averaged, evenly spaced up to the end."""
    lr: float | None = Field(default=None, gt=0)
    """A constant learning rate of the particles from `begin` on, as in the paper; by default that of `[training]`."""
    statistics: Duration = Duration(epochs=1)
    """For how many batches of training examples the running statistics of an average are recomputed, in networks with
    batch norm; `0it`: they are averaged, too."""


def _swamp(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    options: SwampSection = context.options
    begin = max(dense.begin, round(options.begin * dense.last))
    particles = Particles(
        seeds=[context.derive_seed(Purpose.PARTICLE, particle) for particle in range(options.particles)],
        at=spaced_iterations("swamp.points", begin, dense.last, options.points),
        lr=options.lr,
        begin=begin,
        statistics=recompute_for(dense, options.statistics),
    )
    return swamp_search(dense, context.levels, context.prune, particles)


def recompute_for(dense: Run, statistics: Duration) -> Duration:
    """How long running statistics are recomputed: `statistics`, if the network has any."""
    return statistics if running_norms(build(dense.start)) else ZERO


def _swamp_runs_per_level(options: SwampSection) -> int:
    return options.particles * (options.points + (options.lr is not None and options.begin > 0)) + 1


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


_SEARCHES = [
    SearchMethod("iterative", _iterative, one_level=False),
    SearchMethod("one-shot", partial(_iterative, search=one_shot_search), one_level=False),
    SearchMethod(
        "swamp",
        _swamp,
        SwampSection,
        runs_per_level=_swamp_runs_per_level,
        one_level=False,
        rewinds=True,
    ),
    SearchMethod("gradual", _gradual, GradualSection, lambda options: options.changes, mask_changes=True),
    *SPARSE_TRAINING,
    # The last segment of an early-bird search is requested twice.
    SearchMethod("early-bird", _early_bird, EarlyBirdSection, lambda options: options.draws + 1),
    *SUPERMASK_METHODS,
]
METHODS = {method.name: method for method in _SEARCHES}
