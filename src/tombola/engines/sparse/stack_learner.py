"""A learner for stacks of linear layers: all of it in compiled code, on the weights left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tombola.engines.history import Evaluation
from tombola.engines.lr_schedule import learning_rates
from tombola.engines.sparse import loop
from tombola.engines.sparse.layout import StackLayout, padded
from tombola.engines.sparse.products import Floats
from tombola.engines.sparse.stack import Stack
from tombola.engines.training_loop import Part
from tombola.engines.training_state import entries
from tombola.pruning.mask import State
from tombola.runs.run import Run
from tombola.utils.seeds import Purpose, derive
from tombola.zoo.datasets.split import ExampleSet, Split

TILE = 64
"""How many examples are evaluated side by side."""


class StackLearner:
    """Trains one run of `stack`, from the weights in `state`. It needs no lock and no global state."""

    def __init__(self, stack: Stack, state: State, run: Run, split: Split) -> None:
        self.layout = StackLayout(stack, run.mask)
        self.split = split
        self.training = training = run.training
        self.losses = 0.0
        adam = training.optimizer == "adam"
        noise = derive(run.seed, Purpose.NOISE)
        self.options = loop.Options(
            adam, training.momentum, training.nesterov, training.weight_decay, noise, run.begin
        )
        parameters, nothing = self.layout.pack(state), np.empty(0, np.float32)
        self.now = loop.StackWeights(
            parameters,
            gradients=np.zeros_like(parameters),
            first=np.zeros_like(parameters) if adam or training.momentum else nothing,
            second=np.zeros_like(parameters) if adam else nothing,
        )
        self.iteration = run.begin
        self.best = parameters.copy()
        self.width = padded(training.batch_size)
        self.rooms = self.layout.rooms(self.width)
        self.tile_rooms = self.layout.rooms(TILE)

    def train(self, orders: Tensor, first: int) -> None:
        """See `Learner`; one run."""
        (order,) = orders
        train = self.split.train
        x, places = train.x.reshape(len(train.x), -1).numpy(), train.places(order).numpy()
        still = (self.layout.shape, self.now, self.rooms, self.width, self.options)
        rates = learning_rates(self.training, first, len(places))
        self.losses = loop.train(*still, x, train.y.numpy(), places, rates, first, self.losses)
        self.iteration = first + len(places)

    def take_losses(self) -> list[float]:
        """See `Learner`."""
        losses, self.losses = self.losses, 0.0
        return [losses]

    def evaluate(self, part: Part, best: bool = False) -> list[Evaluation]:
        """See `Learner`."""
        weights = self.now._replace(parameters=self.best) if best else self.now
        examples: ExampleSet = getattr(self.split, part)
        x, rows = (
            examples.x.reshape(len(examples.x), -1).numpy(),
            examples.places(torch.arange(len(examples))).numpy(),
        )
        losses, right = loop.evaluate(self.layout.shape, weights, self.tile_rooms, TILE, x, examples.y.numpy(), rows)
        return [Evaluation(losses / len(rows), right / len(rows))]

    def keep(self, better: Sequence[bool]) -> None:
        """See `Learner`."""
        assert all(better)
        self.best[:] = self.now.parameters

    def weights(self) -> list[State]:
        """See `Learner`."""
        return [self.layout.unpack(self.now.parameters)]

    def optimizers(self) -> list[State]:
        """See `Learner`."""
        steps = torch.tensor(float(self.iteration - self.options.begin))
        state = {
            f"{kind}/{name}": value
            for kind, values in self._moments().items()
            for name, value in self.layout.unpack(values).items()
        }
        names = {entry.partition("/")[2] for entry in state} if self.options.adam else set()
        return [state | {f"step/{name}": steps.clone() for name in sorted(names)}]

    def load_optimizers(self, states: Sequence[State]) -> None:
        """See `Learner`."""
        (state,) = states
        for kind, values in self._moments().items():
            if moments := entries(state, kind):
                values[:] = self.layout.pack(moments)
        for steps in list(entries(state, "step").values())[:1]:  # of every parameter the same
            self.options = self.options._replace(begin=self.iteration - int(steps))

    def _moments(self) -> dict[str, Floats]:
        """What the optimizer remembers, by torch's names."""
        if self.options.adam:
            return {"exp_avg": self.now.first, "exp_avg_sq": self.now.second}
        return {"momentum_buffer": self.now.first} if self.options.momentum else {}

    def state(self) -> dict[str, Tensor]:
        """See `Learner`. Dropout needs no random state: its draws follow from the iteration."""
        return {
            "parameters": torch.from_numpy(self.now.parameters),
            "first": torch.from_numpy(self.now.first),
            "second": torch.from_numpy(self.now.second),
            "best": torch.from_numpy(self.best),
            "losses": torch.tensor(self.losses, dtype=torch.float64),
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """See `Learner`."""
        for name in ("parameters", "first", "second"):
            getattr(self.now, name)[:] = state[name].numpy()
        self.best[:] = state["best"].numpy()
        self.losses = state["losses"].item()
