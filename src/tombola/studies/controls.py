"""Controls: what else is trained, so that a ticket's success can be told from the success of anything sparse.

Each answers an "is it ...?" of what could make a ticket good. All else is the ticket's own, batch order included, so
that the two differ in one thing. To add a control, write its study here and name it in `CONTROLS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tombola.pruning.mask import Mask
from tombola.pruning.ranking import keep_best
from tombola.pruning.scopes import Group, weights_left
from tombola.pruning.scores.weights import uniform
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.studies.request import RunRequest, Study
from tombola.studies.rewinding import Retrain, rewind_weights
from tombola.studies.search import Prune, pruned_at_once
from tombola.zoo.models import build

Seed = Callable[[int, int], int]
"""(level, draw) -> the seed of what a control draws."""


@dataclass(frozen=True)
class ControlPlan:
    """Which controls are wanted, of what."""

    tickets: Sequence[RunRequest]
    """All that the search found, the dense network first."""
    draws: int
    """How many draws at each level."""
    seed: Seed
    levels: Collection[int] | None = None
    """At which levels; all if it is None. The dense network has no controls."""
    prune: Prune | None = None
    """How the search pruned."""
    retrain: Retrain = rewind_weights
    """What the search did after pruning."""
    from_dense: bool = False
    """Whether tickets start with weights that are pruned, so that other masks are put on the dense network's run."""

    @property
    def dense(self) -> Mask:
        """The mask of the dense network."""
        return self.tickets[0].run.mask

    def wanted(self, level: int) -> bool:
        """Whether there are controls at this level."""
        return level > 0 and (self.levels is None or level in self.levels)

    def unpruned(self, ticket: RunRequest) -> BaseRun:
        """A run like the ticket's, from the beginning if need be, on which any mask may be put."""
        return self.tickets[0].run if self.from_dense else ticket.run

    def asks(self, branch: str, run_of: Callable[[RunRequest, int], BaseRun]) -> list[RunRequest]:
        """The control of each ticket and draw."""
        return [
            RunRequest(branch, ticket.level, run_of(ticket, draw), draw)
            for ticket in self.tickets
            if self.wanted(ticket.level)
            for draw in range(self.draws)
        ]


def reinit(plan: ControlPlan) -> Study[None]:
    """Is it the mask alone? The same mask on newly drawn initial weights (Frankle & Carbin 2019, section 2)."""
    yield plan.asks("reinit", lambda ticket, draw: ticket.run.reinitialised(plan.seed(ticket.level, draw)))


def reuse(plan: ControlPlan) -> Study[None]:
    """Is it which weights were drawn, not where they stand? Each layer's own initial weights in another order (the
    authors' first release of code has this control)."""
    yield plan.asks("reuse", lambda ticket, draw: ticket.run.reusing(plan.seed(ticket.level, draw)))


def reuse_sign(plan: ControlPlan) -> Study[None]:
    """Is it the signs? The same, but every weight keeps its sign (first release; cf. Zhou et al. 2019, section 4)."""
    yield plan.asks(
        "reuse_sign", lambda ticket, draw: ticket.run.reusing(plan.seed(ticket.level, draw), keep_signs=True)
    )


def random(plan: ControlPlan) -> Study[None]:
    """Is it the densities of the layers alone? A random mask with as many weights in each layer.

    Of one draw, the mask of a level lies within that of the level before, as if pruned at random all the way.
    """

    def run_of(ticket: RunRequest, draw: int) -> BaseRun:
        worth = uniform(ticket.run.mask, plan.seed(0, draw))
        return plan.unpruned(ticket).masked(keep_best(worth, plan.dense, _layers(ticket.run.mask)))

    yield plan.asks("random", run_of)


def shuffled(plan: ControlPlan) -> Study[None]:
    """Is it which weights of a layer are left? The ticket's mask, shuffled within each layer (Frankle et al. 2021,
    "Pruning Neural Networks at Initialization: Why Are We Missing the Mark?", section 5).

    By itself such a mask is distributed as one of `random`; here every level is shuffled anew.
    """

    def run_of(ticket: RunRequest, draw: int) -> BaseRun:
        generator = np.random.default_rng(plan.seed(ticket.level, draw))
        mask = {}
        for name, kept in ticket.run.mask.items():
            order = torch.from_numpy(generator.permutation(kept.numel()))
            mask[name] = kept.flatten()[order].view_as(kept)
        return plan.unpruned(ticket).masked(Mask(mask))

    yield plan.asks("shuffled", run_of)


def random_global(plan: ControlPlan) -> Study[None]:
    """Is it that the network is sparse? A random mask with as many weights over all pruned layers together; masks of
    one draw lie within each other."""

    def run_of(ticket: RunRequest, draw: int) -> BaseRun:
        mask = ticket.run.mask
        pruned = tuple(name for name, left in mask.counts.items() if left < mask.sizes[name])
        worth = uniform(mask, plan.seed(0, draw))
        return plan.unpruned(ticket).masked(keep_best(worth, plan.dense, weights_left(mask, [pruned])))

    yield plan.asks("random_global", run_of)


def large_init(plan: ControlPlan) -> Study[None]:
    """Did it take training to find? Without the weights that are smallest at initialisation, as many in each layer:
    those left began large ("large init" in Zhou et al. 2019; magnitude pruning at initialisation). None is drawn."""
    initial = build(plan.tickets[0].run.start).state_dict()

    def run_of(ticket: RunRequest, draw: int) -> BaseRun:  # noqa: ARG001 - there is one
        worth = {name: initial[name].abs() for name in ticket.run.mask}
        return plan.unpruned(ticket).masked(keep_best(worth, plan.dense, _layers(ticket.run.mask)))

    yield plan.asks("large_init", run_of)


def rewound(plan: ControlPlan) -> Study[None]:
    """Is it a ticket after all? The mask that was found while training, on the initial weights, trained from the
    beginning. None is drawn."""
    yield plan.asks("rewound", lambda ticket, draw: plan.tickets[0].run.masked(ticket.run.mask))  # noqa: ARG005


def one_shot(plan: ControlPlan) -> Study[None]:
    """Did it take rounds? The trained dense network pruned once to each density (Frankle & Carbin 2019, section 2).
    Nothing is drawn."""
    assert plan.prune is not None, "one-shot pruning is done as in the search"
    outcome: Outcome = yield plan.tickets[0]
    if not outcome.measures.diverged and plan.draws:
        levels = plan.tickets[-1].level
        asks = pruned_at_once(plan.tickets[0].run, outcome, levels, plan.prune, "one_shot", plan.retrain)
        yield [ask for ask in asks if plan.wanted(ask.level)]


def _layers(mask: Mask) -> dict[Group, int]:
    return weights_left(mask, [(name,) for name in mask])


CONTROLS: dict[str, Callable[[ControlPlan], Study[None]]] = {
    "reinit": reinit,
    "reuse": reuse,
    "reuse_sign": reuse_sign,
    "random": random,
    "shuffled": shuffled,
    "random_global": random_global,
    "large_init": large_init,
    "one_shot": one_shot,
    "rewound": rewound,
}
"""By the name of their branch. One that draws has a purpose of its own, of the same name, in
`tombola.utils.seeds`."""

OTHER_MASKS = ("random", "shuffled", "random_global", "large_init")
"""Those that put another mask on the ticket's start, which that mask must leave as it is: they need weights that are
not pruned yet."""
