"""Rounds: an iterative search inside one training, the part that is the same for all frameworks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor, nn

from tombola.engines.custom.run import network_state, restore_network
from tombola.integrations.search_config import SearchConfig
from tombola.integrations.state_serialization import copied, flatten, unflatten
from tombola.pruning.hold import Held, hold
from tombola.pruning.mask import Mask, pack_bits, unpack_bits
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError
from tombola.utils.seeds import Purpose, derive
from tombola.utils.versions import versions

Metrics = Callable[[], Mapping[str, float]]
"""Asks the framework what it measured last."""


class Stateful(Protocol):
    """An optimizer, or a schedule of learning rates."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


@dataclass(frozen=True)
class LevelMetrics:
    """One row of the table of levels."""

    level: int
    """How many prunings made the mask; level 0 is the dense network."""
    weights: int
    """How many prunable weights were left."""
    density: float
    """What fraction of them all that is."""
    metrics: Mapping[str, float]
    """What the framework had measured last when the level ended."""


class InLoopSearch:
    """Trains, prunes and rewinds within a single training (Frankle & Carbin 2019, section 1), while somebody else
    owns the loop and says when a step comes (`before_step`) and when one was made (`after_step`).

    Before the first step after the rewinding point the network's parameters and buffers, and the states of all
    optimizers and schedules, are copied to the CPU. Before the first step after the end of a level, when whatever
    measures or saves the trained network has done so, the network is pruned by its trained weights; weights,
    optimizers and schedules go back to the copies, and pruned weights are held at zero from then on. The order of the
    examples goes on, and so do the states of random generators: a level sees other batches than the one before.

    There is one search, and nothing to compare it with. Controls, replicates and whether the ticket matches the dense
    network are what `tombola.find_ticket` is for.

    Every process of a data-parallel training does the same by itself. Sharded parameters are refused.
    """

    def __init__(
        self,
        search: SearchConfig,
        network: nn.Module,
        optimizers: Sequence[Stateful],
        schedules: Sequence[Stateful],
        per_epoch: int | None,
        metrics: Metrics = dict,
    ) -> None:
        """`per_epoch` is the number of iterations, steps of the optimizers, in an epoch; None where it is not known.

        Raises `InputError` where this network cannot be searched like that.
        """
        if any(hasattr(parameter, "full_tensor") for parameter in network.parameters()):
            raise InputError(
                "a search within a training needs whole parameters on every process, and these are sharded"
            )
        self.search = search
        self.network = network
        self.begin, self.end = search.iterations(per_epoch)
        self.level = 0
        self.iteration = 0
        """How far the level is, counted from the beginning of a training."""
        self._trained = {"optimizers": list(optimizers), "schedules": list(schedules)}
        self._ask: Metrics | None = metrics
        self._metrics: dict[str, float] = {}
        self._measured: list[dict[str, float]] = []  # of the levels that have ended
        self._masks = [Mask.full(network)]
        self._pruner = search.pruner(self._masks[0])
        self._start: dict[str, Tensor] = {}  # the weights at the rewinding point, by name
        self._states: Any = None  # those of optimizers and schedules, there
        self._initial: dict[str, Tensor] = {}  # the initial weights, where the score looks at them
        self._held: Held | None = None
        self._try_score()

    @property
    def mask(self) -> Mask:
        """Which weights are left."""
        return self._masks[-1]

    @property
    def total(self) -> int:
        """How many iterations all levels take."""
        return self.end + self.search.levels * (self.end - self.begin)

    @property
    def complete(self) -> bool:
        """Whether all levels have been trained."""
        return self.level == self.search.levels and self.iteration >= self.end

    def before_step(self) -> None:
        """Do what is due before the next step: keep the weights to rewind to, or prune and rewind."""
        if self._states is None and self.iteration == self.begin:
            self._keep()
        elif self.iteration == self.end and self.level < self.search.levels:
            self._measured.append(self._measure())
            self._masks.append(self._pruner(self._grounds()))
            self.level += 1
            self._rewind()

    def after_step(self) -> None:
        """Count a step."""
        self.iteration += 1

    def finish(self) -> None:
        """Let go of the network. Its pruned weights stay zero until somebody trains them."""
        self._measure()
        self._ask = None
        if self._held is not None:
            self._held.remove()
            self._held = None

    @property
    def levels(self) -> list[LevelMetrics]:
        """The table of the levels that have ended."""
        rows = [*self._measured, self._measure()] if self.complete else self._measured
        masks = self._masks[: len(rows)]
        return [LevelMetrics(n, m.count, m.density, row) for n, (m, row) in enumerate(zip(masks, rows, strict=True))]

    @property
    def ticket(self) -> Ticket:
        """The sparsest ticket so far."""
        return self.ticket_at(self.level)

    def ticket_at(self, level: int) -> Ticket:
        """The mask of this level with the weights at the rewinding point.

        Raises `InputError` where the search has not come so far.
        """
        if self._states is None or not 0 <= level <= self.level:
            raise InputError(f"there is no ticket of level {level} yet: this search is at level {self.level}")
        mask, start = self._masks[level], {n: self._start[n].clone() for n in self.network.state_dict()}
        for name, kept in mask.items():
            start[name].masked_fill_(~kept, 0)
        table = [vars(row) for row in self.levels]
        provenance = {"search": self.search.description, "level": level, "levels": table, "versions": versions()}
        return Ticket(mask, start, provenance)

    def state(self) -> tuple[dict[str, Tensor], Any]:
        """All that a checkpoint must hold, as tensors and JSON values, besides what the framework keeps itself: the
        weights, optimizers and schedules as they are now."""
        self._measure()
        tensors: dict[str, Tensor] = {}
        value = {
            "search": self.search.description,
            "level": self.level,
            "iteration": self.iteration,
            "measured": self._measured,
            "metrics": self._metrics,
            "masks": [{name: pack_bits(kept) for name, kept in mask.items()} for mask in self._masks[1:]],
            "start": self._start,
            "initial": self._initial,
            "states": self._states,
        }
        return tensors, flatten(value, "rounds", tensors)

    def load(self, tensors: Mapping[str, Tensor], about: Any) -> None:
        """Go on from what `state` gave; the framework has read its own part already.

        Raises `InputError` where that was another search, or the network's weights are those of another checkpoint.
        """
        value = unflatten(about, tensors)
        there, here = value["search"], self.search.description
        for name in here:
            if there.get(name) != here[name]:
                raise InputError(
                    f"the checkpoint is of another search: {name} is {there.get(name)} there and {here[name]} here"
                )
        shapes = self._masks[0].shapes
        masks = [Mask({n: unpack_bits(bits, shapes[n]) for n, bits in packed.items()}) for packed in value["masks"]]
        self._masks = [self._masks[0], *masks]
        parameters = dict(self.network.named_parameters())
        for name, kept in self.mask.items():
            if parameters[name].detach().cpu()[~kept].any():
                raise InputError(
                    f"the checkpoint of the search is not that of the weights: {name} is not pruned as it says"
                )
        self.level, self.iteration = value["level"], value["iteration"]
        self._measured, self._metrics = value["measured"], value["metrics"]
        self._start, self._initial, self._states = value["start"], value["initial"], value["states"]
        self._hold()

    def _keep(self) -> None:
        self._start = network_state(self.network)
        self._states = copied({kind: [one.state_dict() for one in ones] for kind, ones in self._trained.items()})

    def _rewind(self) -> None:
        restore_network(self.network, self._start)
        self._hold()
        # A copy, because optimizers go on with the very tensors they are given.
        for kind, states in copied(self._states).items():
            for one, state in zip(self._trained[kind], states, strict=True):
                one.load_state_dict(state)
        for parameter in self.network.parameters():
            parameter.grad = None
        self.iteration = self.begin

    def _hold(self) -> None:
        if self.level > 0:
            self._held = hold(self.network, self.mask)

    def _measure(self) -> dict[str, float]:
        """What was measured last, of every name that ever was."""
        if self._ask is not None:
            self._metrics |= self._ask()
        return dict(self._metrics)

    def _grounds(self) -> ScoreInputs:
        parameters = dict(self.network.named_parameters())
        return ScoreInputs(
            weights={name: parameters[name].detach() for name in self.mask},
            mask=self.mask,
            seed=derive(self.search.seed, Purpose.SCORE, 0, self.level + 1),
            _start=lambda: {name: tensor.to(parameters[name].device) for name, tensor in self._initial.items()},
        )

    def _try_score(self) -> None:
        """Refuse at once a score that would fail at the end of the first level, and keep what it will look at."""
        grounds, looked = self._grounds(), []

        def start() -> Mapping[str, Tensor]:
            looked.append(True)
            return grounds.weights

        try:
            self._pruner.score(replace(grounds, _start=start))
        except InputError as error:
            raise InputError(
                f"score: within a training there are weights to look at, and nothing else: {error}"
            ) from error
        if looked:
            self._initial = copied(dict(grounds.weights))
