"""InLoopSearch: an iterative search inside one training, independent of the framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from tombola.engines.custom.checks import Shapes, check_hold, check_parameters, parameter_shapes
from tombola.engines.custom.engine import CustomRun
from tombola.engines.custom.model import restore_network
from tombola.experiments.custom_config import import_path
from tombola.experiments.results_schema import Row
from tombola.experiments.score_inputs import prune, score_inputs
from tombola.integrations.in_loop_scores import InLoopScores
from tombola.integrations.search_config import SearchConfig
from tombola.integrations.state_serialization import cpu_copy, flatten, unflatten
from tombola.pruning.held_weight import held_weight
from tombola.pruning.hold import Held, check_held, held, hold
from tombola.pruning.mask import Mask, State, pack_bits, unpack_bits
from tombola.pruning.network_state import named_tensors, network_state, persistent_tensors, prune_state
from tombola.runs.outcome import Measures, Outcome, figures_of
from tombola.runs.run import BaseRun
from tombola.studies.request import RunRequest
from tombola.studies.search import iterative_search
from tombola.tickets.origin import provenance_of
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError
from tombola.utils.random_state import seeded
from tombola.utils.seeds import Purpose, derive
from tombola.utils.text import first_line
from tombola.zoo.models.description import Network, Start

LoggedMetrics = Callable[[], Mapping[str, float]]
"""Returns the framework's latest metrics."""


class Stateful(Protocol):
    """An optimizer or a learning rate scheduler."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


@dataclass(frozen=True)
class LevelMetrics(Row):
    """A finished level: its row in the table of levels, and the framework's metrics."""

    matrix_weights: int
    """The number of all matrix weights of the network, prunable or not."""
    metrics: Mapping[str, float]
    """The framework's metrics at the end of the level."""

    @property
    def density(self) -> float:
        """The fraction of prunable weights left."""
        return self.weights_left

    @property
    def density_of_all(self) -> float | None:
        """The fraction left of all matrix weights of the network, prunable or not."""
        return self.weights_left_of(self.matrix_weights)


class InLoopSearch:
    """Trains, prunes and rewinds within a single training (Frankle & Carbin 2019, section 1). The framework owns the
    training loop, and calls `before_step` and `after_step`.

    Before the first step after the rewinding point, the network's parameters and buffers and the states of all
    optimizers and schedulers are copied to the CPU. Before the first step after the end of a level, once the
    framework has evaluated and saved the trained network, the network is pruned by its trained weights. Weights,
    optimizers and schedulers are rewound to the copies, and pruned weights are held at zero from then on; so are the
    optimizers' states of them, such as averages of weights. The order of the examples and the states of random
    generators are not rewound: each level sees other batches.

    Before the network is scored or saved, and at the end, its pruned weights are checked; see `hold` for evaluations.
    Its layers should stay the same from the first step on: they are checked then too, and before evaluations.

    There is one search, without controls or replicates: to know whether the ticket matches the dense network, use
    `tombola.find_ticket`.

    Every process of a data-parallel training does the same by itself. Sharded parameters are refused.
    """

    def __init__(
        self,
        config: SearchConfig,
        network: nn.Module,
        optimizers: Sequence[Stateful],
        schedulers: Sequence[Stateful],
        steps_per_epoch: int | None,
        metrics: LoggedMetrics = dict,
        train: str = "own loop",
    ) -> None:
        """`steps_per_epoch` counts optimizer steps; None if unknown. `train` says what trains the network: the import
        path of a function, if it has one.

        Raises `InputError` if this network cannot be searched with this config.
        """
        if any(hasattr(parameter, "full_tensor") for parameter in network.parameters()):
            raise InputError(
                "the parameters are sharded: a search within a training needs whole ones on every process"
            )
        self.config = config
        self.network = network
        self.begin, self.end = config.iterations(steps_per_epoch)
        self.iteration = 0
        """The iteration within the level, counted from the beginning of a dense training."""
        self._stateful = {"optimizers": list(optimizers), "schedules": list(schedulers)}
        self._read_metrics: LoggedMetrics | None = metrics
        self._metrics: dict[str, float] = {}
        self._level_metrics: list[dict[str, float]] = []  # of the finished levels
        self._recipe = config.recipe(import_path(type(network)), train)
        prunable = config.options.prunable(network, config.example)
        self._matrix_weights = prunable.matrix_weights
        self._scores = InLoopScores(config.pruner(prunable), self._weights(prunable.dense))
        self._known: list[Mask] = []  # from a checkpoint: masks of the next levels
        dense = self._dense_run(prunable.dense)
        self._search = iterative_search(dense, config.levels, self._prune)
        self._tickets = [next(self._search)]  # of the levels reached
        self._start: dict[str, Tensor] = {}  # the weights at the rewinding point, by name
        self._states: Any = None  # the states of optimizers and schedulers at the rewinding point
        self._held: Held | None = None
        self._shapes: Shapes | None = None  # of all parameters at the first step
        self._prepare_score()

    def _dense_run(self, mask: Mask) -> BaseRun:
        """The training of the dense network, from the rewinding point."""
        network = Network(name=f"own:{type(self.network).__qualname__}", inputs=(), classes=0)
        whole = CustomRun(
            start=Start(network=network, seed=0), mask=mask, seed=self._recipe.seed, procedure=""
        ).until(self.end)
        return whole.after(whole.until(self.begin), self.begin, self.end) if self.begin else whole

    @property
    def level(self) -> int:
        """How many times the network was pruned."""
        return self._tickets[-1].level

    @property
    def mask(self) -> Mask:
        """The mask of the current level."""
        return self._tickets[-1].run.mask

    @property
    def total(self) -> int:
        """How many iterations all levels take."""
        return self.end + self.config.levels * (self.end - self.begin)

    @property
    def complete(self) -> bool:
        """Whether all levels have been trained."""
        return self.level == self.config.levels and self.iteration >= self.end

    def before_step(self) -> None:
        """Copy the states to rewind to, or prune and rewind, if the next step requires it. Raises `InputError` if a
        pruned weight is not zero at the end of a level, a layer has been replaced, or the former states cannot be
        loaded."""
        if self._shapes is None:
            self._shapes = self._parameter_shapes()
            if held(self.network) is None:
                self._hold()  # of the dense network: it tells whether layers are replaced
        if self._states is None and self.iteration == self.begin:
            self._save_rewinding_point()
        elif self.iteration == self.end and self.level < self.config.levels:
            self._check_network()
            self._end_level(self._update_metrics(), self._weights(self.mask))
            self._rewind()

    def after_step(self) -> None:
        """Count a step."""
        self.iteration += 1

    def check_layers(self) -> None:
        """Raises `InputError` if layers of the network have been replaced, added or removed during the search."""
        if self._shapes is None or self._held is None:
            return
        check_parameters("training", self._shapes, self._parameter_shapes())
        weights = {name: held_weight(self.network, name) for name in named_tensors(self.network)}
        check_hold("training", self.mask, {name: weight.kept for name, weight in weights.items() if weight})

    def finish(self) -> None:
        """Release the network. Its layers are the same and its pruned weights are zero, otherwise this raises
        `InputError`, but further training can change them."""
        self._check_network()
        self._update_metrics()
        self._read_metrics = None
        if self._held is not None:
            self._held.remove()
            self._held = None

    @property
    def levels(self) -> list[LevelMetrics]:
        """The finished levels."""
        found = [*self._level_metrics, self._update_metrics()] if self.complete else self._level_metrics
        return [self._row(ticket, metrics) for ticket, metrics in zip(self._tickets, found, strict=False)]

    def _row(self, ticket: RunRequest, metrics: dict[str, float]) -> LevelMetrics:
        row = Row.of(0, ticket, self._outcome(metrics, {}))
        return LevelMetrics(**vars(row), matrix_weights=self._matrix_weights, metrics=metrics)

    @property
    def ticket(self) -> Ticket:
        """The sparsest ticket so far."""
        return self.ticket_at(self.level)

    def ticket_at(self, level: int) -> Ticket:
        """The mask of this level with the weights at the rewinding point.

        Raises `InputError` if the search has not reached it.
        """
        if self._states is None or not 0 <= level <= self.level:
            raise InputError(f"there is no ticket of level {level} yet: this search is at level {self.level}")
        ticket, start = self._tickets[level], {n: self._start[n].clone() for n in persistent_tensors(self.network)}
        prune_state(self.network, start, ticket.run.mask)
        measured = {row.level: row.measures for row in self.levels}
        provenance = provenance_of(
            self._recipe, 0, ticket, self._matrix_weights, measured.get(level), measured.get(0)
        )
        return Ticket(ticket.run.mask, start, provenance)

    def state(self) -> tuple[dict[str, Tensor], Any]:
        """The state for a checkpoint, as tensors and JSON values. It does not include what the framework saves
        itself: the current weights, optimizers and schedulers. Raises `InputError` if a pruned weight is not zero, or
        a layer has been replaced."""
        self._check_network()
        self._update_metrics()
        tensors: dict[str, Tensor] = {}
        value = {
            "search": self.config.description,
            "level": self.level,
            "iteration": self.iteration,
            "measured": self._level_metrics,
            "metrics": self._metrics,
            "masks": [{name: pack_bits(kept) for name, kept in t.run.mask.items()} for t in self._tickets[1:]],
            "start": self._start,
            "initial": self._scores.initial,
            "states": self._states,
        }
        return tensors, flatten(value, "rounds", tensors)

    def load(self, tensors: Mapping[str, Tensor], about: Any) -> None:
        """Resume from what `state` returned, after the framework has loaded its own part.

        Raises `InputError` if the options of the search differ, or the weights are those of another checkpoint.
        """
        value = unflatten(about, tensors)
        saved, current = value["search"], self.config.description
        for name in {**current, **saved}:
            there, here = saved.get(name), current.get(name)
            if there != here:
                raise InputError(f"the checkpoint is of another search: {name} is {there} there and {here} here")
        shapes = self.mask.shapes
        masks = [Mask({n: unpack_bits(bits, shapes[n]) for n, bits in packed.items()}) for packed in value["masks"]]
        self._known = masks.copy()
        for metrics in value["measured"][: len(masks)]:
            self._end_level(metrics, {})
        for name, kept in self.mask.items():
            if self.network.get_parameter(name).detach().cpu()[~kept].any():
                raise InputError(
                    f"the checkpoint of the search does not match the weights: pruned weights of {name} are not zero"
                )
        self.iteration, self._metrics = value["iteration"], value["metrics"]
        self._start, self._scores.initial, self._states = value["start"], value["initial"], value["states"]
        self._hold()

    def _end_level(self, metrics: dict[str, float], final: State) -> None:
        self._tickets.append(self._search.send(self._outcome(metrics, final)))
        self._level_metrics.append(metrics)

    def _outcome(self, metrics: Mapping[str, float], final: State) -> Outcome:
        """Of the training of a level. `final`: the weights that can be pruned, where they are used."""
        figures: Any = figures_of("{}", {n: v for n, v in metrics.items() if n not in Measures.model_fields})
        measures = Measures(diverged=False, iterations=self.end, **figures)
        return Outcome(final, {}, measures, self._recipe.functions.train, seconds=0)

    def _weights(self, mask: Mask) -> State:
        """The network's own weights that can be pruned, not copies."""
        tensors = named_tensors(self.network)
        return {name: tensors[name].detach() for name in mask}

    def _prune(self, outcome: Outcome, run: BaseRun, level: int) -> Mask:
        return self._known.pop(0) if self._known else prune(self._scores, run, outcome, self._seed(level))

    def _seed(self, level: int) -> int:
        return derive(self.config.seed, Purpose.SCORE, 0, level)

    def _save_rewinding_point(self) -> None:
        self._start = network_state(self.network)
        self._states = cpu_copy({kind: [one.state_dict() for one in ones] for kind, ones in self._stateful.items()})

    def _rewind(self) -> None:
        restore_network(self.network, self._start)
        self._hold()
        # A copy, because optimizers update the very tensors that they load.
        for kind, states in cpu_copy(self._states).items():
            for one, state in zip(self._stateful[kind], states, strict=True):
                _load(kind, one, state)
        for optimizer in self._stateful["optimizers"]:
            self._prune_optimizer(optimizer)
        for parameter in self.network.parameters():
            parameter.grad = None
        self.iteration = self.begin

    def _prune_optimizer(self, optimizer: Any) -> None:
        """Set the optimizer's state of pruned weights to zero: averages and the like would bring them back."""
        kept = {id(self.network.get_parameter(name)): kept for name, kept in self.mask.items()}
        for parameter, state in getattr(optimizer, "state", {}).items():
            for tensor in state.values() if id(parameter) in kept else ():
                if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.shape == parameter.shape:
                    tensor.masked_fill_(~kept[id(parameter)].to(tensor.device), 0)

    def _hold(self) -> None:
        self._held = hold(self.network, self.mask)

    def _check_network(self) -> None:
        self.check_layers()
        check_held(self.network)

    def _parameter_shapes(self) -> Shapes:
        return parameter_shapes(self.network, named_tensors(self.network))

    def _update_metrics(self) -> dict[str, float]:
        """The latest value of every metric so far."""
        if self._read_metrics is not None:
            self._metrics |= self._read_metrics()
        return dict(self._metrics)

    def _prepare_score(self) -> None:
        """Refuse a score that would fail at the end of the first level. Copy the initial weights if it uses them."""
        seed, outcome = self._seed(1), self._outcome({}, self._scores.initial)
        try:
            with seeded(seed):
                self._scores.pruner.score(score_inputs(self._scores, self._tickets[0].run, outcome, seed))
        except InputError as error:
            raise InputError(
                f"score: within a training only trained and initial weights are available: {error}"
            ) from error
        self._scores.initial = cpu_copy(outcome.final) if self._scores.used_initial else {}


def _load(kind: str, one: Stateful, state: Any) -> None:
    try:
        one.load_state_dict(state)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{kind}: {type(one).__name__} cannot be rewound, because it was changed during training: "
            f"{first_line(error)}"
        ) from error
