"""SWAMP: masks found by pruning averages of networks (Choi et al. 2023, "Sparse Weight Averaging with Multiple
Particles for Iterative Magnitude Pruning", arXiv:2305.14852)."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study
from tombola.studies.search import Prune


def swamp_search(
    dense: Run, levels: int, prune: Prune, seeds: Sequence[int], at: Sequence[int]
) -> Study[list[RunRequest]]:
    """At each level, train several particles of one mask, with batch orders of `seeds`; average their weights over
    the particles and the iterations `at`, the last of which ends the training; and prune by the average (section 3,
    algorithm 1).

    The averages are runs with no iterations, `average`. The tickets are ordinary trainings of the masks, with the
    dense network's batch order, so that controls and the verdict apply to them. Learning rates are those of the
    training, where the paper averages at a constant rate. Returns the dense network and the tickets; the search ends
    early if a training diverges.
    """
    tickets = [RunRequest("ticket", 0, dense)]
    while True:
        ticket = tickets[-1]
        outcome: Outcome = yield ticket
        if outcome.measures.diverged:
            return tickets
        del outcome
        run = dense.masked(ticket.run.mask)
        averaged = yield from _train_particles(run, ticket.level, seeds, at)
        if averaged is None:
            return tickets
        average: Outcome = yield RunRequest("average", ticket.level, run.averaging(averaged, at[-1]))
        if ticket.level == levels or average.measures.diverged:
            return tickets
        mask = prune(average, ticket.run, ticket.level + 1)
        del average
        tickets.append(RunRequest("ticket", ticket.level + 1, dense.masked(mask)))


def _train_particles(run: Run, level: int, seeds: Sequence[int], at: Sequence[int]) -> Study[list[Run] | None]:
    """The runs whose final weights are averaged; None if one of them diverged."""
    particles = [run.model_copy(update={"seed": seed}) for seed in seeds]
    paused, averaged = list[Run](), list[Run]()
    for end in at:
        before = paused
        paused = [
            (particle.resuming(before[draw]) if before else particle).paused(end)
            for draw, particle in enumerate(particles)
        ]
        outcomes: list[Outcome] = yield [
            RunRequest("particle", level, each, draw) for draw, each in enumerate(paused)
        ]
        if any(outcome.measures.diverged for outcome in outcomes):
            return None
        averaged += paused
    return averaged
