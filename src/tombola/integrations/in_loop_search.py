"""InLoopSearch: an iterative search inside one training, independent of the framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor, nn

from tombola.engines.custom.checks import Shapes, check_hold, check_parameters, parameter_shapes
from tombola.engines.custom.model import restore_network
from tombola.integrations.search_config import SearchConfig
from tombola.integrations.state_serialization import cpu_copy, flatten, unflatten
from tombola.pruning.held_weight import held_weight
from tombola.pruning.hold import Held, check_held, held, hold
from tombola.pruning.mask import Mask, pack_bits, unpack_bits
from tombola.pruning.network_state import named_tensors, network_state, persistent_tensors, prune_state
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError
from tombola.utils.libraries import versions
from tombola.utils.seeds import Purpose, derive
from tombola.utils.text import first_line

LoggedMetrics = Callable[[], Mapping[str, float]]
"""Returns the framework's latest metrics."""


class Stateful(Protocol):
    """An optimizer or a learning rate scheduler."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


@dataclass(frozen=True)
class LevelMetrics:
    """One row of the table of levels."""

    level: int
    """How many times the network was pruned; level 0 is the dense network."""
    weights: int
    """How many prunable weights are kept."""
    density: float
    """That number as a fraction of all prunable weights."""
    density_of_all: float
    """The fraction left of all matrix weights of the network, prunable or not."""
    metrics: Mapping[str, float]
    """The framework's metrics at the end of the level."""


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
    ) -> None:
        """`steps_per_epoch` counts optimizer steps; None if unknown.

        Raises `InputError` if this network cannot be searched with this config.
        """
        if any(hasattr(parameter, "full_tensor") for parameter in network.parameters()):
            raise InputError(
                "the parameters are sharded: a search within a training needs whole ones on every process"
            )
        self.config = config
        self.network = network
        self.begin, self.end = config.iterations(steps_per_epoch)
        self.level = 0
        self.iteration = 0
        """The iteration within the level, counted from the beginning of a dense training."""
        self._stateful = {"optimizers": list(optimizers), "schedules": list(schedulers)}
        self._read_metrics: LoggedMetrics | None = metrics
        self._metrics: dict[str, float] = {}
        self._level_metrics: list[dict[str, float]] = []  # of the finished levels
        prunable = config.options.prunable(network)
        self._masks = [prunable.dense]
        self._matrix_weights = prunable.matrix_weights
        self._pruner = config.pruner(prunable)
        self._start: dict[str, Tensor] = {}  # the weights at the rewinding point, by name
        self._states: Any = None  # the states of optimizers and schedulers at the rewinding point
        self._initial: dict[str, Tensor] = {}  # the initial weights, if the score uses them
        self._held: Held | None = None
        self._shapes: Shapes | None = None  # of all parameters at the first step
        self._check_score()

    @property
    def mask(self) -> Mask:
        """The mask of the current level."""
        return self._masks[-1]

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
            self._level_metrics.append(self._update_metrics())
            self._masks.append(self._pruner(self._score_inputs()))
            self.level += 1
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
        rows = [*self._level_metrics, self._update_metrics()] if self.complete else self._level_metrics
        masks = self._masks[: len(rows)]
        return [self._level(n, mask, row) for n, (mask, row) in enumerate(zip(masks, rows, strict=True))]

    def _level(self, level: int, mask: Mask, metrics: Mapping[str, float]) -> LevelMetrics:
        of_all = 1 - (mask.size - mask.count) / self._matrix_weights
        return LevelMetrics(level, mask.count, mask.density, of_all, metrics)

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
        mask, start = self._masks[level], {n: self._start[n].clone() for n in persistent_tensors(self.network)}
        prune_state(self.network, start, mask)
        table = [vars(row) for row in self.levels]
        provenance = {
            "search": self.config.description,
            "level": level,
            "levels": table,
            "matrix_weights": self._matrix_weights,
            "versions": versions(),
        }
        return Ticket(mask, start, provenance)

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
            "masks": [{name: pack_bits(kept) for name, kept in mask.items()} for mask in self._masks[1:]],
            "start": self._start,
            "initial": self._initial,
            "states": self._states,
        }
        return tensors, flatten(value, "rounds", tensors)

    def load(self, tensors: Mapping[str, Tensor], about: Any) -> None:
        """Resume from what `state` returned, after the framework has loaded its own part.

        Raises `InputError` if the options of the search differ, or the weights are those of another checkpoint.
        """
        value = unflatten(about, tensors)
        saved, current = value["search"], self.config.description
        for name in current:
            if saved.get(name) != current[name]:
                raise InputError(
                    f"the checkpoint is of another search: {name} is {saved.get(name)} there and {current[name]} here"
                )
        shapes = self._masks[0].shapes
        masks = [Mask({n: unpack_bits(bits, shapes[n]) for n, bits in packed.items()}) for packed in value["masks"]]
        self._masks = [self._masks[0], *masks]
        parameters = dict(self.network.named_parameters())
        for name, kept in self.mask.items():
            if parameters[name].detach().cpu()[~kept].any():
                raise InputError(
                    f"the checkpoint of the search does not match the weights: pruned weights of {name} are not zero"
                )
        self.level, self.iteration = value["level"], value["iteration"]
        self._level_metrics, self._metrics = value["measured"], value["metrics"]
        self._start, self._initial, self._states = value["start"], value["initial"], value["states"]
        self._hold()

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

    def _score_inputs(self) -> ScoreInputs:
        parameters = dict(self.network.named_parameters())
        return ScoreInputs(
            weights={name: parameters[name].detach() for name in self.mask},
            mask=self.mask,
            seed=derive(self.config.seed, Purpose.SCORE, 0, self.level + 1),
            _start=lambda: {name: tensor.to(parameters[name].device) for name, tensor in self._initial.items()},
        )

    def _check_score(self) -> None:
        """Refuse a score that would fail at the end of the first level. Copy the initial weights if it uses them."""
        inputs, used = self._score_inputs(), []

        def start() -> Mapping[str, Tensor]:
            used.append(True)
            return inputs.weights

        try:
            self._pruner.score(replace(inputs, _start=start))
        except InputError as error:
            raise InputError(
                f"score: within a training only trained and initial weights are available: {error}"
            ) from error
        if used:
            self._initial = cpu_copy(dict(inputs.weights))


def _load(kind: str, one: Stateful, state: Any) -> None:
    try:
        one.load_state_dict(state)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{kind}: {type(one).__name__} cannot be rewound, because it was changed during training: "
            f"{first_line(error)}"
        ) from error
