"""A learner that trains a whole network in compiled loops, with its kept weights only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tombola.engines.augmentation import AugmentationDraws
from tombola.engines.history import Evaluation
from tombola.engines.optimizers import learning_rates
from tombola.engines.sparse.network_layout import STATISTICS, NetworkLayout
from tombola.engines.training_loop import SplitName
from tombola.kernels.plans.training_plan import TrainingPlan
from tombola.kernels.products import Floats
from tombola.kernels.training import loop
from tombola.kernels.training.tables import Options
from tombola.pruning.mask import State
from tombola.runs.run import Run
from tombola.runs.sparse_state import strip_prefix
from tombola.utils.seeds import Purpose, derive
from tombola.zoo.datasets.example_set import ExampleSet, in_memory
from tombola.zoo.datasets.split import Split

EVALUATED = 64
"""Examples that are evaluated at a time."""


class NetworkLearner:
    """A `Learner` of one run of a network with this plan, from its `state_dict`, without global state."""

    device = torch.device("cpu")
    how = "loop"
    """How it trains, as in the engine's name."""

    def __init__(self, plan: TrainingPlan, state: State, run: Run, split: Split) -> None:
        self.training = training = run.training
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        self.layout = NetworkLayout(plan, shapes, run.mask, training.decay_normalisation)
        self.split = split
        self.losses = 0.0
        adam, decoupled = training.optimizer in ("adam", "adamw"), training.optimizer == "adamw"
        noise = derive(run.seed, Purpose.NOISE)
        rule = adam, training.momentum, training.nesterov, training.weight_decay, decoupled
        self.options = Options(*rule, noise, run.begin)
        self.current = self.layout.weights(state, moments=2 if adam else int(training.momentum > 0))
        self.begin = self.iteration = run.begin
        self.batches_tracked = {name: value for name, value in state.items() if name.endswith("num_batches_tracked")}
        self.best = self._copy()
        self.workspace = self.layout.workspace(training.batch_size, training=True)
        self.evaluation_workspace = self.layout.workspace(EVALUATED, training=False)
        augmented = run.data.augmented
        self.draws = (
            AugmentationDraws(run.seed, training.batch_size, run.data.flip, run.data.crop) if augmented else None
        )
        self.crop = run.data.crop
        self.black = split.black.numpy().reshape(-1)

    def train(self, orders: Tensor, first: int) -> None:
        (order,) = orders
        train = in_memory(self.split.train)
        x, y = _arrays(train)
        rows = train.rows_of(order).numpy()
        choices = self.draws.choices(first, len(rows)).numpy() if self.draws else np.empty((0, 0, 3), np.int64)
        self.losses = loop.train(
            self.layout.structure,
            self.current,
            self.workspace,
            self.options,
            *(x, y, rows, choices, self.crop, self.black),
            *(learning_rates(self.training, first, len(rows)), first, self.losses),
        )
        self.iteration = first + len(rows)

    def take_losses(self) -> list[float]:
        losses, self.losses = self.losses, 0.0
        return [losses]

    def evaluate(self, split_name: SplitName, best: bool = False) -> list[Evaluation]:
        examples: ExampleSet = getattr(self.split, split_name)
        x, y = _arrays(examples)
        rows = examples.rows_of(torch.arange(len(examples))).numpy()
        weights = self.current._replace(**self.best) if best else self.current
        losses, correct = loop.evaluate(
            self.layout.structure, weights, self.evaluation_workspace, x, y, rows, self.black
        )
        return [Evaluation(losses / len(rows), correct / len(rows))]

    def keep_best(self, improved: Sequence[bool]) -> None:
        assert all(improved)
        self.best = self._copy()

    def weights(self) -> list[State]:
        state = self.layout.unpack(self.current.parameters) | self.layout.unpack_statistics(self.current)
        for name, value in self.batches_tracked.items():
            state[name] = value + (self.iteration - self.begin)
        return [{name: state[name] for name in self.layout.names}]

    def optimizer_states(self) -> list[State]:
        steps = torch.tensor(float(self.iteration - self.options.begin))
        state = {
            f"{kind}/{name}": value
            for kind, values in self._moments().items()
            for name, value in self.layout.unpack(values).items()
        }
        names = {entry.partition("/")[2] for entry in state} if self.options.adam else set()
        return [state | {f"step/{name}": steps.clone() for name in sorted(names)}]

    def load_optimizer_states(self, states: Sequence[State]) -> None:
        (state,) = states
        for kind, values in self._moments().items():
            if moments := strip_prefix(state, kind):
                values[:] = self.layout.pack(moments)
        for steps in list(strip_prefix(state, "step").values())[:1]:  # equal for all parameters
            self.options = self.options._replace(begin=self.iteration - int(steps))

    def _moments(self) -> dict[str, Floats]:
        """The optimizer's state, by torch's names."""
        if self.options.adam:
            return {"exp_avg": self.current.first, "exp_avg_sq": self.current.second}
        return {"momentum_buffer": self.current.first} if self.options.momentum else {}

    def _copy(self) -> dict[str, Floats]:
        """What is kept of the best weights."""
        return {name: getattr(self.current, name).copy() for name in ("parameters", *STATISTICS.values())}

    def _state(self) -> dict[str, Floats]:
        """The arrays that training changes, without those that it need not remember."""
        current = {name: array for name, array in self.current._asdict().items() if name != "gradients"}
        return current | {f"best/{name}": array for name, array in self.best.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """There is no random state: the draws of dropout and augmentation depend on the iteration."""
        tensors = {name: torch.tensor(array) for name, array in self._state().items()}
        counts = torch.tensor([self.iteration, self.options.begin], dtype=torch.int64)
        return tensors | {"losses": torch.tensor(self.losses, dtype=torch.float64), "counts": counts}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, array in self._state().items():
            array[:] = state[name].numpy()
        self.losses = state["losses"].item()
        self.iteration, begin = state["counts"].tolist()
        self.options = self.options._replace(begin=begin)


def _arrays(examples: ExampleSet) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """All inputs, an example a row, and labels."""
    return examples.x.reshape(len(examples.x), -1).numpy(), examples.y.numpy()
