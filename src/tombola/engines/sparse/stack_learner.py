"""A learner for stacks of linear layers, in compiled code, on the kept weights only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tombola.engines.history import Evaluation
from tombola.engines.optimizers import learning_rates
from tombola.engines.sparse import stack_kernels
from tombola.engines.sparse.stack import Stack
from tombola.engines.sparse.stack_layout import StackLayout, padded
from tombola.engines.training_loop import SplitName
from tombola.kernels.products import Floats
from tombola.pruning.mask import State
from tombola.runs.run import Run
from tombola.runs.sparse_state import strip_prefix
from tombola.utils.seeds import Purpose, derive
from tombola.zoo.datasets.split import ExampleSet, Split

EVALUATION_WIDTH = 64
"""Examples that are evaluated at a time."""


class StackLearner:
    """A `Learner` of one run of `stack`, from the weights in `state`, without global state."""

    device = torch.device("cpu")

    def __init__(self, stack: Stack, state: State, run: Run, split: Split) -> None:
        self.layout = StackLayout(stack, run.mask)
        self.split = split
        self.training = training = run.training
        self.losses = 0.0
        adam = training.optimizer == "adam"
        noise = derive(run.seed, Purpose.NOISE)
        self.options = stack_kernels.Options(
            adam, training.momentum, training.nesterov, training.weight_decay, noise, run.begin
        )
        parameters, nothing = self.layout.pack(state), np.empty(0, np.float32)
        self.current = stack_kernels.StackWeights(
            parameters,
            gradients=np.zeros_like(parameters),
            first=np.zeros_like(parameters) if adam or training.momentum else nothing,
            second=np.zeros_like(parameters) if adam else nothing,
        )
        self.iteration = run.begin
        self.best = parameters.copy()
        self.width = padded(training.batch_size)
        self.workspace = self.layout.workspace(self.width)
        self.evaluation_workspace = self.layout.workspace(EVALUATION_WIDTH)

    def train(self, orders: Tensor, first: int) -> None:
        (order,) = orders
        train = self.split.train
        x, places = train.x.reshape(len(train.x), -1).numpy(), train.rows_of(order).numpy()
        constant = (self.layout.structure, self.current, self.workspace, self.width, self.options)
        rates = learning_rates(self.training, first, len(places))
        self.losses = stack_kernels.train(*constant, x, train.y.numpy(), places, rates, first, self.losses)
        self.iteration = first + len(places)

    def take_losses(self) -> list[float]:
        losses, self.losses = self.losses, 0.0
        return [losses]

    def evaluate(self, split_name: SplitName, best: bool = False) -> list[Evaluation]:
        weights = self.current._replace(parameters=self.best) if best else self.current
        examples: ExampleSet = getattr(self.split, split_name)
        x, rows = (
            examples.x.reshape(len(examples.x), -1).numpy(),
            examples.rows_of(torch.arange(len(examples))).numpy(),
        )
        losses, correct = stack_kernels.evaluate(
            self.layout.structure, weights, self.evaluation_workspace, EVALUATION_WIDTH, x, examples.y.numpy(), rows
        )
        return [Evaluation(losses / len(rows), correct / len(rows))]

    def keep_best(self, improved: Sequence[bool]) -> None:
        assert all(improved)
        self.best[:] = self.current.parameters

    def weights(self) -> list[State]:
        return [self.layout.unpack(self.current.parameters)]

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

    def state_dict(self) -> dict[str, Tensor]:
        """There is no random state: the draws of dropout depend on the iteration."""
        arrays = {
            "parameters": self.current.parameters,
            "first": self.current.first,
            "second": self.current.second,
            "best": self.best,
            "losses": np.float64(self.losses),
        }
        return {name: torch.tensor(values) for name, values in arrays.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name in ("parameters", "first", "second"):
            getattr(self.current, name)[:] = state[name].numpy()
        self.best[:] = state["best"].numpy()
        self.losses = state["losses"].item()
