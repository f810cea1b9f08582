"""SWAMP as a search method, and its options."""

from __future__ import annotations

from pydantic import Field

from tombola.experiments.methods.search_method import MethodContext, SearchMethod, spaced_iterations
from tombola.pruning.normalisation import running_norms
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study
from tombola.studies.swamp import Particles, swamp_search
from tombola.utils.duration import ZERO, Duration
from tombola.utils.frozen_model import FrozenModel
from tombola.utils.seeds import Purpose
from tombola.zoo.models import build


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


SWAMP = SearchMethod(
    "swamp", _swamp, SwampSection, runs_per_level=_swamp_runs_per_level, one_level=False, rewinds=True
)
