"""SWAMP: masks found by pruning averages of networks (Choi et al. 2023, "Sparse Weight Averaging with Multiple
Particles for Iterative Magnitude Pruning", arXiv:2305.14852)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study
from tombola.studies.search import Prune
from tombola.utils.duration import ZERO, Duration


@dataclass(frozen=True)
class Particles:
    """The trainings of one mask whose weights are averaged."""

    seeds: Sequence[int]
    """Of everything random in each of them."""
    at: Sequence[int]
    """The iterations at which weights are averaged; the last ends the training."""
    lr: float | None = None
    """A constant learning rate from iteration `begin` on; None: that of the training."""
    begin: int = 0
    statistics: Duration = ZERO
    """See `Trained.statistics`."""


def swamp_search(dense: Run, levels: int, prune: Prune, particles: Particles) -> Study[list[RunRequest]]:
    """At each level, train several particles of one mask, which differ in batch order; average their weights over the
    particles and over iterations at the end of the training; and prune by the average (section 3, algorithm 1).

    The averages are runs with no iterations, `average`. The tickets are ordinary trainings of the masks, with the
    dense network's batch order, so that controls and the verdict apply to them. The paper averages at a constant
    learning rate. Returns the dense network and the tickets; the search ends early if a training diverges.
    """
    tickets = [RunRequest("ticket", 0, dense)]
    while True:
        ticket = tickets[-1]
        outcome: Outcome = yield ticket
        if outcome.measures.diverged:
            return tickets
        del outcome
        run = dense.masked(ticket.run.mask)
        averaged = yield from _train_particles(run, ticket.level, particles)
        if averaged is None:
            return tickets
        averaging = run.averaging(averaged, particles.at[-1], particles.statistics)
        average: Outcome = yield RunRequest("average", ticket.level, averaging)
        if ticket.level == levels or average.measures.diverged:
            return tickets
        mask = prune(average, ticket.run, ticket.level + 1)
        del average
        tickets.append(RunRequest("ticket", ticket.level + 1, dense.masked(mask)))


def _train_particles(run: Run, level: int, particles: Particles) -> Study[list[Run] | None]:
    """The runs whose final weights are averaged; None if one of them diverged."""
    paused, averaged = [run.model_copy(update={"seed": seed}) for seed in particles.seeds], list[Run]()
    first = [particles.begin] if particles.lr is not None and particles.begin > run.begin else []
    for end in [*first, *particles.at]:
        paused = [_continued(run, each, particles).paused(end) for each in paused]
        outcomes: list[Outcome] = yield [
            RunRequest("particle", level, each, draw) for draw, each in enumerate(paused)
        ]
        if any(outcome.measures.diverged for outcome in outcomes):
            return None
        averaged += paused if end in particles.at else []
    return averaged


def _continued(run: Run, particle: Run, particles: Particles) -> Run:
    """What `particle` trains next: all of the training, if it has not been trained yet, or the rest."""
    if particle.keeps_optimizer:
        particle = run.model_copy(update={"seed": particle.seed}).resuming(particle)
    if particles.lr is not None and particle.begin >= particles.begin:
        return particle.at_constant_rate(particles.lr)
    return particle
