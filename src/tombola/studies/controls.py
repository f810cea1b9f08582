"""Controls: further trainings, which rule out other explanations of a ticket's success.

Each control differs from the ticket in one thing; everything else, batch order included, is the same. To add a
control, write its study here and add it to `CONTROLS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tombola.pruning.exchangeable_units import UnitPermutation
from tombola.pruning.mask import Mask, State
from tombola.pruning.random_mask import RandomMask, random_mask
from tombola.pruning.structures import UNSTRUCTURED, Structure
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun, Run
from tombola.studies.request import SECOND_DENSE, RunRequest, Study
from tombola.studies.rewinding import Retrain, rewind_weights, train_trunk
from tombola.studies.search import Prune, one_shot_requests

ControlSeed = Callable[[int, int], int]
"""(level, draw) -> the seed of what a control draws."""


@dataclass(frozen=True)
class ControlPlan:
    """The controls to train, and the tickets to compare them with."""

    tickets: Sequence[RunRequest]
    """The result of the search, the dense network first."""
    draws: int
    seed: ControlSeed
    levels: Collection[int] | None = None
    """The levels at which they are trained; all if None. The dense network has no controls."""
    prune: Prune | None = None
    """How the search pruned."""
    retrain: Retrain = rewind_weights
    """What the search did after pruning."""
    from_dense: bool = False
    """Whether the tickets' starting weights are pruned, so that other masks must be applied to the dense run."""
    initial: Callable[[], State] | None = None
    """Draws the initial weights of the replicate."""
    random_mask: RandomMask = random_mask
    structure: Structure = UNSTRUCTURED
    """The structure that was pruned: other masks also keep or prune whole units of it."""
    match: Callable[[Outcome, Outcome], UnitPermutation] | None = None
    """Matches the hidden units of two trained dense networks."""

    @property
    def dense(self) -> Mask:
        return self.tickets[0].run.mask

    def includes(self, level: int) -> bool:
        return level > 0 and (self.levels is None or level in self.levels)

    def unpruned(self, ticket: RunRequest) -> BaseRun:
        """A run like the ticket's to which any mask can be applied; with `from_dense`, it trains from iteration 0."""
        return self.tickets[0].run if self.from_dense else ticket.run

    @property
    def compared(self) -> list[RunRequest]:
        """The tickets that have controls."""
        return [ticket for ticket in self.tickets if self.draws and self.includes(ticket.level)]

    def requests(self, branch: str, run_of: Callable[[RunRequest, int], BaseRun]) -> list[RunRequest]:
        """The control of each ticket and draw."""
        return [
            RunRequest(branch, ticket.level, run_of(ticket, draw), draw)
            for ticket in self.compared
            for draw in range(self.draws)
        ]


def reinit(plan: ControlPlan) -> Study[None]:
    """Is the mask alone enough? Train the same mask with newly drawn initial weights (Frankle & Carbin 2019,
    section 2)."""
    yield plan.requests("reinit", lambda ticket, draw: ticket.run.reinitialised(plan.seed(ticket.level, draw)))


def permuted(plan: ControlPlan) -> Study[None]:
    """Can the mask move to another initialisation, if its units are matched? A second dense network is trained from
    newly drawn initial weights, its hidden units are matched to those of the first, and the mask, permuted
    accordingly, is trained from the second network's initial weights, or from those at its iteration k (Adnan et al.
    2025, "Sparse Training from Random Initialization: Aligning Lottery Ticket Masks using Weight Symmetry", section
    3; they match activations, not weights). One second network serves all levels of a draw."""
    assert plan.match is not None, "permuted needs to match units"
    if not plan.compared:
        return
    first: Outcome = yield plan.tickets[0]
    if first.measures.diverged:
        return
    matched: dict[int, tuple[BaseRun, UnitPermutation]] = {}
    for draw in range(plan.draws):
        other = yield from _second_dense(plan, draw)
        second: Outcome = yield RunRequest(SECOND_DENSE, 0, other, draw)
        if not second.measures.diverged:
            matched[draw] = other, plan.match(first, second)
        del second
    del first
    yield [
        RunRequest("permuted", ticket.level, other.masked(permutation.carry_over(ticket.run.mask)), draw)
        for ticket in plan.compared
        for draw, (other, permutation) in matched.items()
    ]


def unpermuted(plan: ControlPlan) -> Study[None]:
    """The naive baseline of `permuted`: the same initial weights, or the same weights at iteration k, with the
    mask as it is. Without rewinding it is `reinit` with other draws."""
    others = list[BaseRun]()
    for draw in range(plan.draws if plan.compared else 0):
        others.append((yield from _second_dense(plan, draw)))
    if others:
        yield plan.requests("unpermuted", lambda ticket, draw: others[draw].masked(ticket.run.mask))


def reuse(plan: ControlPlan) -> Study[None]:
    """Do the values of the initial weights suffice, regardless of their positions? Train each layer's initial weights
    in shuffled order (as in the first release of the authors' code)."""
    yield plan.requests("reuse", lambda ticket, draw: ticket.run.reusing(plan.seed(ticket.level, draw)))


def reuse_sign(plan: ControlPlan) -> Study[None]:
    """Do the signs suffice? Like `reuse`, but every weight keeps its sign (as in the first release; cf. Zhou et al.
    2019, "mask-1 actions")."""
    yield plan.requests(
        "reuse_sign", lambda ticket, draw: ticket.run.reusing(plan.seed(ticket.level, draw), keep_signs=True)
    )


def signs(plan: ControlPlan) -> Study[None]:
    """Are the ticket's signs enough, with other magnitudes? Train weights drawn as those of `reinit`, with the signs
    of the weights that the ticket starts from, or the dense network where masks change during training (Frankle et
    al. 2020, "The Early Phase of Neural Network Training")."""

    def run_of(ticket: RunRequest, draw: int) -> BaseRun:
        return ticket.run.with_signs_of(plan.unpruned(ticket).start, plan.seed(ticket.level, draw))

    yield plan.requests("signs", run_of)


def magnitudes(plan: ControlPlan) -> Study[None]:
    """Are the ticket's magnitudes enough, with other signs? Train the weights that the ticket starts from, with
    newly drawn signs, from the same iteration; the complement of `signs`."""

    def run_of(ticket: RunRequest, draw: int) -> BaseRun:
        run = plan.unpruned(ticket).masked(ticket.run.mask)
        return run.with_drawn_signs(plan.seed(ticket.level, draw))

    yield plan.requests("magnitudes", run_of)


def trained_signs(plan: ControlPlan) -> Study[None]:
    """Are the signs that the ticket ends with enough? Like `signs`, with the signs and the normalisation parameters
    of the trained ticket (Oh et al. 2025, "Find A Winning Sign", arXiv 2504.05357)."""
    chosen = [ticket for ticket in plan.tickets if plan.includes(ticket.level)]
    outcomes: list[Outcome] = yield chosen
    diverged = {t.level for t, outcome in zip(chosen, outcomes, strict=True) if outcome.measures.diverged}

    def run_of(ticket: RunRequest, draw: int) -> BaseRun:
        seed = plan.seed(ticket.level, draw)
        return ticket.run.with_signs_of(ticket.run.final_start, seed, normalisation=True)

    yield [request for request in plan.requests("trained_signs", run_of) if request.level not in diverged]


def sign_in(plan: ControlPlan) -> Study[None]:
    """Does a mask on new weights train better if signs change more easily? Train `reinit` with each weight the
    product of two factors (Gadhikar et al. 2025, "Sign-In to the Lottery", arXiv 2504.12801; see `SignIn`)."""

    def run_of(ticket: RunRequest, draw: int) -> BaseRun:
        return ticket.run.reinitialised(plan.seed(ticket.level, draw)).parametrized(PARAMETRIZED_CONTROLS["sign_in"])

    yield plan.requests("sign_in", run_of)


def random(plan: ControlPlan) -> Study[None]:
    """Do the densities of the layers suffice? Train a random mask with the same number of weights in each layer or,
    with a structure, of units in each set. The masks of one draw are nested, as in random pruning."""

    def run_of(ticket: RunRequest, draw: int) -> BaseRun:
        mask = ticket.run.mask
        drawn = plan.random_mask(
            mask, plan.dense, plan.structure.counts_like(mask), plan.seed(0, draw), plan.structure
        )
        return plan.unpruned(ticket).masked(drawn)

    yield plan.requests("random", run_of)


def shuffled(plan: ControlPlan) -> Study[None]:
    """Does it matter which weights of a layer are kept? Train the ticket's mask, shuffled within each layer (Frankle
    et al. 2021, "Pruning Neural Networks at Initialization: Why Are We Missing the Mark?"). A single mask has
    the same distribution as a mask of `random`, but every level is shuffled independently. With a structure, units
    are shuffled within each set."""

    def run_of(ticket: RunRequest, draw: int) -> BaseRun:
        mask, seed = ticket.run.mask, plan.seed(ticket.level, draw)
        if plan.structure is UNSTRUCTURED:
            return plan.unpruned(ticket).masked(_shuffled_weights(mask, seed))
        drawn = plan.random_mask(mask, plan.dense, plan.structure.counts_like(mask), seed, plan.structure)
        return plan.unpruned(ticket).masked(drawn)

    yield plan.requests("shuffled", run_of)


def random_global(plan: ControlPlan) -> Study[None]:
    """Is sparsity enough? Train a random mask with the same number of weights over all pruned layers together. With a
    structure, random units of all pruned sets are kept, with the same number of weights or slightly fewer. The masks
    of one draw are nested."""

    def run_of(ticket: RunRequest, draw: int) -> BaseRun:
        mask = ticket.run.mask
        drawn = plan.random_mask(
            mask, plan.dense, plan.structure.total_like(mask), plan.seed(0, draw), plan.structure
        )
        return plan.unpruned(ticket).masked(drawn)

    yield plan.requests("random_global", run_of)


def large_init(plan: ControlPlan) -> Study[None]:
    """Is training needed to find the mask? Keep the weights, or units, that are largest at initialisation, the same
    number in each layer or set (magnitude pruning at initialisation; "large init" in Zhou et al. 2019)."""
    assert plan.initial is not None, "large_init needs the initial weights"
    initial = plan.initial()

    def run_of(ticket: RunRequest, draw: int) -> BaseRun:  # noqa: ARG001 - there is one
        scores = {name: initial[name].abs() for name in ticket.run.mask}
        return plan.unpruned(ticket).masked(plan.structure.best_like(scores, plan.dense, ticket.run.mask))

    yield plan.requests("large_init", run_of)


def rewound(plan: ControlPlan) -> Study[None]:
    """Is it a lottery ticket? Train a mask that was found during training from its initial weights and iteration
    0."""
    yield plan.requests("rewound", lambda ticket, draw: plan.tickets[0].run.masked(ticket.run.mask))  # noqa: ARG005


def one_shot(plan: ControlPlan) -> Study[None]:
    """Are iterations of pruning needed? Prune the trained dense network once to each density (Frankle & Carbin 2019,
    section 2)."""
    assert plan.prune is not None, "one-shot pruning needs the search's way of pruning"
    outcome: Outcome = yield plan.tickets[0]
    if not outcome.measures.diverged and plan.draws:
        dense, levels = plan.tickets[0].run, plan.tickets[-1].level
        requests = one_shot_requests(dense, outcome, levels, plan.prune, "one_shot", plan.retrain)
        del outcome
        yield [request for request in requests if plan.includes(request.level)]


def _second_dense(plan: ControlPlan, draw: int) -> Study[BaseRun]:
    """The dense network's run with newly drawn initial weights, from the iteration on that tickets are rewound to."""
    dense = plan.tickets[0].run
    return (yield from train_trunk(dense.reinitialised(plan.seed(0, draw)), dense.begin))


def _shuffled_weights(mask: Mask, seed: int) -> Mask:
    generator = np.random.default_rng(seed)
    shuffled = {}
    for name, kept in mask.layers.items():
        order = torch.from_numpy(generator.permutation(kept.numel()))
        shuffled[name] = kept.flatten()[order].view_as(kept)
    return mask.with_layers(shuffled)


CONTROLS: dict[str, Callable[[ControlPlan], Study[None]]] = {
    control.__name__: control
    for control in (
        *(reinit, permuted, unpermuted, reuse, reuse_sign, signs, magnitudes, trained_signs, sign_in),
        *(random, shuffled, random_global, large_init, one_shot, rewound),
    )
}
"""The controls by the name of their branch. A control that draws has a `Purpose` of the same name in
`tombola.utils.seeds`."""

NEW_MASK_CONTROLS = ("random", "shuffled", "random_global", "large_init")
"""Controls that apply another mask to the ticket's starting weights, which therefore must not be pruned."""

SECOND_DENSE_CONTROLS = ("permuted", "unpermuted")
"""Controls that start like a second dense network, which therefore must be rewound to the same iteration."""

PARAMETRIZED_CONTROLS = {"sign_in": "sign-in"}
"""Controls that train the network with a parametrization, and its name in `PARAMETRIZATIONS`."""


def parametrized_runs(dense: Run, controls: Collection[str]) -> list[Run]:
    """For each of these controls that trains the network with a parametrization, the dense network's run with it."""
    return [dense.parametrized(by) for name, by in PARAMETRIZED_CONTROLS.items() if name in controls]


REDRAWN_CONTROLS = ("reinit", *SECOND_DENSE_CONTROLS, "signs", "trained_signs", "sign_in")
"""Controls that draw initial weights."""
