"""Training costs: the multiply-adds of trainings, in units of one training of the dense network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from tombola.pruning.mask import Mask
from tombola.pruning.multiply_adds import multiply_adds
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun, Run
from tombola.studies.conductor import Listener
from tombola.studies.request import BASELINE, SECOND_DENSE, RunRequest
from tombola.utils.errors import InputError
from tombola.zoo.models import build
from tombola.zoo.models.reparametrization import weight_name

Position = tuple[int, str, int, int]
"""Replicate, branch, level and draw."""

NON_SEARCH_BRANCHES = (BASELINE, SECOND_DENSE, "stability", "transfer", "transfer_random")
"""Branches that are not part of the search for a mask."""


@dataclass(frozen=True)
class DenseCost:
    """What one training of the dense network costs."""

    multiply_adds: Mapping[str, int]
    """By parameter, for one example in a forward pass; the backward pass multiplies this by a constant factor."""
    iterations: int

    @classmethod
    def of(cls, dense: Run) -> DenseCost:
        """The cost of the run `dense`. Where the operations of the network cannot be recorded, each prunable weight
        counts as one multiply-add."""
        network = build(dense.start)
        example = torch.randn(2, *dense.start.network.inputs, generator=torch.Generator().manual_seed(0))
        try:
            found = multiply_adds(PrunableNetwork(network, given_example=example).coupling.graph, 2)
        except InputError:
            found = {}
        return cls(found or dense.mask.sizes, dense.training.length.iterations)

    def density(self, mask: Mask) -> float:
        """The fraction of the multiply-adds left. Parameters that the mask lacks are dense."""
        counts, sizes = ({weight_name(n): count for n, count in each.items()} for each in (mask.counts, mask.sizes))
        left = sum(n * counts[p] / sizes[p] if sizes.get(p) else n for p, n in self.multiply_adds.items())
        return left / sum(self.multiply_adds.values())

    def share(self, run: BaseRun) -> float:
        """The cost of a run as a fraction of that of the dense training: its density times its iterations.

        Evaluations, scores and the gradients that masks grow by are not counted.
        """
        assert isinstance(run, Run), "the length of a custom training is unknown"
        return self.density(run.mask) * max(0, run.last - run.begin) / self.iterations


@dataclass(frozen=True)
class _Request:
    """One request of a study."""

    position: Position
    key: str


@dataclass
class TrainingCosts(Listener):
    """Collects what the runs of one experiment cost, as shares of one dense training."""

    dense: DenseCost
    shares: dict[str, float] = field(default_factory=dict)
    """By the key of the run."""
    _parents: dict[str, Sequence[str]] = field(default_factory=dict)
    _continued: dict[str, Sequence[str]] = field(default_factory=dict)  # those of the parents that it trains further
    _requests: dict[Position, list[_Request]] = field(default_factory=dict)
    _order: dict[int, list[_Request]] = field(default_factory=dict)  # by replicate

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        """Add a run; `study` is the replicate."""
        if request.point is None:
            self.add(study, request)

    def add(self, replicate: int, request: RunRequest) -> None:
        """Add a run of this replicate. A study's requests must be added in order."""
        position = replicate, request.branch, request.level, request.draw
        found = _Request(position, request.run.key)
        self.shares[found.key] = self.dense.share(request.run)
        start = request.run.start
        self._parents[found.key] = start.parents
        self._continued[found.key] = start.model_copy(update={"signs": None}).parents
        self._requests.setdefault(position, []).append(found)
        self._order.setdefault(replicate, []).append(found)

    def training(self, position: Position) -> float:
        """The cost of training the network at this position, from its first iteration on."""
        return self._sum(self._chain(position))

    def search(self, position: Position, controls: Iterable[str], first_level: int) -> float:
        """The cost of finding its mask: of all other runs that the study requested before, from `first_level` up to
        the level, without `controls`."""
        return self._sum(self._before(position, controls, first_level) - self._chain(position))

    def _before(self, position: Position, controls: Iterable[str], first_level: int) -> set[str]:
        replicate, _, level, _ = position
        others, found = {*controls, *NON_SEARCH_BRANCHES}, set[str]()
        for request in self._order[replicate]:
            if request.position == position:
                break
            _, branch, own_level, _ = request.position
            if branch not in others and first_level <= own_level <= level:
                found |= self._with(self._continued, request.key)
        return found

    def search_of_control(self, position: Position, controls: Iterable[str]) -> float:
        """The cost of what a control needs besides its own training: the ticket's search, a second dense network, and
        the ticket's training if its outcome is used."""
        replicate, branch, level, draw = position
        ticket = replicate, "ticket", level, 0
        before = self._before(ticket, controls, 0)
        needed = self._with(self._parents, self._requests[position][-1].key)
        if branch == "permuted":
            needed |= self._chain((replicate, SECOND_DENSE, 0, draw))
        return self._sum(before - self._chain(ticket)) + self._sum(needed - self._chain(position) - before)

    def total(self, first_level: int) -> float:
        """The cost of all different runs from this level on."""
        requests = (each for order in self._order.values() for each in order)
        return self._sum({each.key for each in requests if each.position[2] >= first_level})

    def _chain(self, position: Position) -> set[str]:
        """The run at this position, and those that it continues."""
        return self._with(self._continued, self._requests[position][-1].key)

    def _with(self, parents: Mapping[str, Sequence[str]], key: str) -> set[str]:
        """The run with this key, and those that it depends on."""
        found, left = set(), [key]
        while left:
            each = left.pop()
            if each not in found and each in self.shares:
                found.add(each)
                left += parents[each]
        return found

    def _sum(self, keys: Iterable[str]) -> float:
        return sum(self.shares[key] for key in sorted(keys))


@dataclass(frozen=True)
class CostsByExperiment(Listener):
    """Notifies the costs of each experiment of its own runs, where studies are numbered across experiments."""

    costs: Sequence[tuple[TrainingCosts, int]]
    """For each study, in order, the costs of its experiment and its replicate."""

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:
        costs, replicate = self.costs[study]
        costs.answered(replicate, request, outcome, trained)
