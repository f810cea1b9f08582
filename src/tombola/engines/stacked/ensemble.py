"""A learner for many runs of one shape, trained as one: everything stacked along a first axis, one entry per run."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from tombola.engines.augmentation import Augmentation
from tombola.engines.history import Evaluation
from tombola.engines.module_learner import EVALUATION_BATCH
from tombola.engines.optimizers import Rates, normalising, optimizer
from tombola.engines.precision import at_least_single, autocast
from tombola.engines.stacked.cuda_graph import CapturedGraph
from tombola.engines.training_loop import Part
from tombola.engines.training_state import (
    load_optimizer_state,
    optimizer_state,
    restore_training_state,
    training_state,
)
from tombola.pruning.mask import State
from tombola.runs.run import Run
from tombola.zoo.datasets.split import ExampleSet, Split


@dataclass(frozen=True)
class Pool:
    """The examples of several runs. Inputs that runs share are there once, and so are labels.

    `x`: inputs, of shape (any, *shape); `y`: labels, of shape (any,); `rows`: which inputs are each run's, int64 of
    shape (runs, examples); `shift`: how many rows further the labels of each run are, int64 of shape (runs, 1).
    """

    x: Tensor
    y: Tensor
    rows: Tensor
    shift: Tensor

    @classmethod
    def of(cls, parts: Sequence[ExampleSet], device: torch.device) -> Pool:
        """The examples of each run, all of the same number, on `device`."""
        x, x_begins = _joined([part.x for part in parts])
        y, y_begins = _joined([part.y for part in parts])
        rows = torch.stack([part.places(torch.arange(len(part))) for part in parts]) + x_begins
        return cls(x.to(device), y.to(device), rows.to(device), (y_begins - x_begins).to(device))

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs in these rows and their labels, of shape (runs, batch, *shape) and (runs, batch)."""
        return self.x[rows], self.y[rows + self.shift]


def _joined(arrays: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The arrays in one, each of them once, and where each begins there, of shape (arrays, 1)."""
    different = {array.data_ptr(): array for array in arrays}
    begins, end = {}, 0
    for pointer, array in different.items():
        begins[pointer] = end
        end += len(array)
    first, *others = different.values()
    joined = torch.cat([first, *others]) if others else first
    return joined, torch.tensor([[begins[array.data_ptr()]] for array in arrays])


class EnsembleLearner:
    """Trains `networks` of one architecture, their pruned weights zero already, as `runs` say. Run r has entry r of
    every list, and of the first axis of every tensor.

    Its memory grows with the number of runs, but for what they share of the data. `at_once` examples of every run
    are evaluated at once.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        runs: Sequence[Run],
        splits: Sequence[Split],
        device: torch.device,
        at_once: int = EVALUATION_BATCH,
    ) -> None:
        self.device = device
        training = self.training = runs[0].training
        masks = [run.mask for run in runs]
        self.at_once = at_once
        # The weights of this one are never used: each forward pass is made with those of every run in their place.
        self.network = networks[0].to(device)
        parameters, buffers = stack_module_state([network.to(device) for network in networks])
        self.parameters: State = parameters
        self.buffers: State = buffers
        self.forward = vmap(self._call, randomness="different")
        cuda = device.type == "cuda"
        self.optimizer = optimizer(self.parameters, normalising(self.network), training, capturable=cuda)
        self.rates = Rates(self.optimizer, training)
        self.augmenting = Augmentation.of(runs, splits, device)
        self.masked = [
            (
                self.parameters[name],
                torch.stack([mask[name] for mask in masks]).to(device, self.parameters[name].dtype),
            )
            for name in masks[0]
            if not all(mask[name].all() for mask in masks)
        ]
        parts: tuple[Part, ...] = ("train", "validation", "test")
        self.pools = {part: Pool.of([getattr(split, part) for split in splits], device) for part in parts}
        self.rows = torch.zeros(len(runs), training.batch_size, dtype=torch.int64, device=device)
        self.choice = torch.zeros(*self.rows.shape, 3, dtype=torch.int64, device=device)
        self.loss_sums = torch.zeros(len(runs), device=device)
        self.sums = torch.zeros(2, len(runs), dtype=torch.float64, device=device)
        self.best = {name: tensor.detach().clone() for name, tensor in self._network_state().items()}
        self._prepare()

    def _prepare(self) -> None:
        """Work that is the same each time; it holds on to the optimizer's present state."""
        self.step = CapturedGraph(self._step, self.device)
        self.evaluations = {
            (part, best): CapturedGraph(functools.partial(self._evaluate, part, best), self.device)
            for part in self.pools
            for best in (False, True)
        }

    def _network_state(self) -> State:
        return self.parameters | self.buffers

    def _call(self, parameters: State, buffers: State, x: Tensor) -> Tensor:
        """The network of one run."""
        return cast(Tensor, functional_call(self.network, (parameters, buffers), (x,)))

    def _losses(self, parameters: State, buffers: State, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of shape (runs, batch, classes), and the cross-entropy of every example, (runs, batch)."""
        with autocast(self.training.precision, self.device):
            logits: Tensor = self.forward(parameters, buffers, x)
        logits = at_least_single(logits)
        losses = functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
        return logits, losses.view(y.shape)

    def train(self, orders: Tensor, first: int) -> None:
        """See `Learner`."""
        runs, iterations, batch = orders.shape
        if self.device.type == "cuda":
            orders = orders.pin_memory()  # or the copy would wait for the device
        orders = orders.to(self.device, non_blocking=True)
        places = self.pools["train"].rows.gather(1, orders.flatten(1)).view(runs, iterations, batch)
        self.network.train()
        rates = self.rates.of(first, iterations)
        choices = self.augmenting.choices(first, iterations) if self.augmenting else None
        for index, rows in enumerate(places.transpose(0, 1).contiguous()):
            self.rates.set(rates[index])
            self.rows.copy_(rows)
            if choices is not None:
                self.choice.copy_(choices[index].view_as(self.choice))
            self.step()

    def _step(self) -> None:
        """One iteration, on the examples in `rows`."""
        x, y = self.pools["train"].batch(self.rows)
        if self.augmenting:
            x = self.augmenting(x.flatten(0, 1), self.choice.flatten(0, 1)).view_as(x)
        _, losses = self._losses(self.parameters, self.buffers, x, y)
        means = losses.mean(1)
        self.optimizer.zero_grad(set_to_none=True)
        # The sum keeps runs apart: the gradient of each run's weights is that of its own loss, be others NaN.
        means.sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        # Whatever momentum or weight decay did, a pruned weight is zero again before anything reads it.
        with torch.no_grad():
            for weight, kept in self.masked:
                weight.mul_(kept)
        self.loss_sums += means.detach()

    def take_losses(self) -> list[float]:
        """See `Learner`."""
        losses: list[float] = self.loss_sums.tolist()
        self.loss_sums.zero_()
        return losses

    def evaluate(self, part: Part, best: bool = False) -> list[Evaluation]:
        """See `Learner`. It waits for the device once."""
        self.network.eval()
        self.evaluations[part, best]()
        examples = self.pools[part].rows.shape[1]
        return [
            Evaluation(loss / examples, correct / examples) for loss, correct in zip(*self.sums.tolist(), strict=True)
        ]

    @torch.no_grad()
    def _evaluate(self, part: Part, best: bool) -> None:
        """Leave the sums over all examples in `sums`: of the loss, and of those that are right."""
        pool = self.pools[part]
        state = self.best if best else self._network_state()
        parameters = {name: state[name] for name in self.parameters}
        buffers = {name: state[name] for name in self.buffers}
        self.sums.zero_()
        for rows in torch.split(pool.rows, self.at_once, dim=1):
            x, y = pool.batch(rows)
            logits, losses = self._losses(parameters, buffers, x, y)
            self.sums[0] += losses.sum(1)
            self.sums[1] += (logits.argmax(2) == y).sum(1)

    @torch.no_grad()
    def keep(self, better: Sequence[bool]) -> None:
        """See `Learner`."""
        which = torch.tensor(better, device=self.device)
        for name, present in self._network_state().items():
            best = self.best[name]
            best.copy_(torch.where(which.view(-1, *[1] * (best.ndim - 1)), present, best))

    def weights(self) -> list[State]:
        """See `Learner`."""
        states = []
        present = {name: tensor.detach().cpu() for name, tensor in self._network_state().items()}
        for run in range(len(self.rows)):
            # The module itself knows which of its tensors are part of its state, and which go by two names.
            self._set({name: tensor[run] for name, tensor in present.items()})
            states.append({name: t.detach().cpu().clone() for name, t in self.network.state_dict().items()})
        return states

    @torch.no_grad()
    def _set(self, values: State) -> None:
        for name, tensor in [*self.network.named_parameters(), *self.network.named_buffers()]:
            tensor.copy_(values[name])

    def optimizers(self) -> list[State]:
        """See `Learner`."""
        stacked = optimizer_state(self.optimizer, self.parameters)
        return [
            {entry: value[run].clone() if value.dim() else value for entry, value in stacked.items()}
            for run in range(len(self.rows))
        ]

    def load_optimizers(self, states: Sequence[State]) -> None:
        """See `Learner`. A stack has one count of steps: raises `ValueError` where its runs' differ."""
        stacked = {entry: torch.stack([state[entry] for state in states]) for entry in states[0]}
        for entry, values in stacked.items():
            if entry.startswith("step/"):
                if (values != values[0]).any():
                    raise ValueError("optimizers that have made different numbers of steps cannot go on as one stack")
                stacked[entry] = values[0]
        load_optimizer_state(self.optimizer, self.parameters, stacked)
        self._prepare()

    def state(self) -> dict[str, Tensor]:
        """See `Learner`."""
        tensors = {f"network/{name}": tensor.detach().clone() for name, tensor in self._network_state().items()}
        tensors |= {f"best/{name}": tensor.clone() for name, tensor in self.best.items()}
        return tensors | {"losses": self.loss_sums.clone()} | training_state(self.optimizer, self.device)

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """See `Learner`."""
        for name, tensor in self._network_state().items():
            tensor.copy_(state[f"network/{name}"])
            self.best[name].copy_(state[f"best/{name}"])
        self.loss_sums.copy_(state["losses"])
        restore_training_state(state, self.optimizer, self.device)
        self._prepare()
