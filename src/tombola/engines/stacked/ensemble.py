"""A learner for many runs of one shape, stacked along the first axis of every tensor."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from tombola.engines import optimizers
from tombola.engines.augmentation import Augmentation
from tombola.engines.eager import MAX_EVALUATION_BATCH
from tombola.engines.history import Evaluation
from tombola.engines.precision import at_least_float32, autocast
from tombola.engines.stacked.cuda_graph import CudaGraphs
from tombola.engines.stacked.fusion import make_fused_step
from tombola.engines.stacked.masked_optimizer import MaskedOptimizer
from tombola.engines.stacked.triton_support import triton_usable
from tombola.engines.training_loop import SplitName
from tombola.pruning.mask import State
from tombola.pruning.normalisation import normalisation_parameters
from tombola.runs.run import Run
from tombola.utils.host_copies import host_copies
from tombola.utils.transfers import to_device
from tombola.zoo.datasets.example_set import ExampleSet
from tombola.zoo.datasets.split import Split


@dataclass(frozen=True)
class SharedExamples:
    """The examples of several runs; inputs and labels that runs share are stored once.

    `x`: inputs, of shape (any, *shape); `y`: labels, of shape (any,); `rows`: the rows of each run's inputs in `x`,
    int64 of shape (runs, examples); `label_offset`: what to add for the rows of its labels in `y`, int64 of shape
    (runs, 1).
    """

    x: Tensor
    y: Tensor
    rows: Tensor
    label_offset: Tensor

    @classmethod
    def of(cls, example_sets: Sequence[ExampleSet], device: torch.device) -> SharedExamples:
        """The examples of each run, equally many, on `device`."""
        x, x_offsets = _concatenate_unique([examples.x for examples in example_sets])
        y, y_offsets = _concatenate_unique([examples.y for examples in example_sets])
        rows = torch.stack([e.rows_of(torch.arange(len(e))) for e in example_sets]) + x_offsets
        x = x.to(device).contiguous()
        return cls(x, y.to(device), rows.to(device), (y_offsets - x_offsets).to(device))

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs at `rows` and their labels, of shape (runs, batch, *shape) and (runs, batch)."""
        return self.x[rows], self.labels(rows)

    def labels(self, rows: Tensor) -> Tensor:
        """The labels of the inputs at `rows`, of shape (runs, batch)."""
        return self.y[rows + self.label_offset]


def _concatenate_unique(arrays: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The distinct arrays in one, and the row where each array begins in it, of shape (arrays, 1)."""
    distinct = {array.data_ptr(): array for array in arrays}
    offsets, end = {}, 0
    for pointer, array in distinct.items():
        offsets[pointer] = end
        end += len(array)
    first, *others = distinct.values()
    concatenated = torch.cat([first, *others]) if others else first
    return concatenated, torch.tensor([[offsets[array.data_ptr()]] for array in arrays])


def _call(network: nn.Module, parameters: State, buffers: State, x: Tensor) -> Tensor:
    """The network with the weights of one run. A function, not a method of the learner, which would hold itself."""
    return cast(Tensor, functional_call(network, (parameters, buffers), (x,)))


def _in_gradient_layout(network: nn.Module, parameters: State) -> State:
    """The stacked parameters, laid out in memory as their gradients come, so that autograd need not copy these: the
    gradient of a linear layer's weight is a batched product x'd, transposed."""
    linear = {
        id(module.weight) for module in network.modules() if isinstance(module, nn.Linear) and module.weight.ndim == 2
    }
    transposed = [name for name, parameter in network.named_parameters() if id(parameter) in linear]
    return parameters | {
        name: parameters[name].detach().mT.contiguous().mT.requires_grad_(parameters[name].requires_grad)
        for name in transposed
    }


class EnsembleLearner:
    """A `Learner` of `networks` of one architecture, their pruned weights zero. Run r is entry r of every list and
    of the first axis of every tensor.

    Its memory grows with the number of runs, except for shared data. `evaluation_batch_size` examples of every run
    are evaluated at once. `kernels`: whether it uses Triton's, where they can be.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        runs: Sequence[Run],
        splits: Sequence[Split],
        device: torch.device,
        evaluation_batch_size: int = MAX_EVALUATION_BATCH,
        kernels: bool = True,
    ) -> None:
        self.device = device
        training = self.training = runs[0].training
        masks = [run.mask for run in runs]
        self.evaluation_batch_size = evaluation_batch_size
        # Only the structure of this one is used: forward passes substitute the weights of the runs.
        self.network = networks[0].to(device)
        parameters, buffers = stack_module_state([network.to(device) for network in networks])
        self.parameters: State = _in_gradient_layout(self.network, parameters)
        self.buffers: State = buffers
        self.forward = vmap(functools.partial(_call, self.network), randomness="different")
        cuda = device.type == "cuda"
        self.optimizer = optimizers.build_optimizer(
            self.parameters, normalisation_parameters(self.network), training, capturable=cuda
        )
        self.augmentation = Augmentation.of(runs, splits, device)
        pruned = {
            name: torch.stack([~mask[name] for mask in masks]).to(device)
            for name in masks[0]
            if not all(mask[name].all() for mask in masks)
        }
        kernels = kernels and training.optimizer != "adamw"  # whose decay they do not know
        self.masked_optimizer = MaskedOptimizer(
            self.optimizer, self.parameters, pruned, kernels and triton_usable(device)
        )
        self.fused_step = (
            make_fused_step(
                self.network, training, self.parameters, self.masked_optimizer.pruned, self.optimizer, device
            )
            if kernels and not training.label_smoothing
            else None
        )
        names: tuple[SplitName, ...] = ("train", "validation", "test")
        self.examples = {
            name: SharedExamples.of([getattr(split, name) for split in splits], device) for name in names
        }
        self.rows = torch.zeros(len(runs), training.batch_size, dtype=torch.int64, device=device)
        self.choice = torch.zeros(*self.rows.shape, 3, dtype=torch.int64, device=device)
        self.loss_sums = torch.zeros(len(runs), device=device)
        self.sums = torch.zeros(2, len(runs), dtype=torch.float64, device=device)
        self.best = {name: tensor.detach().clone() for name, tensor in self._network_state().items()}
        self.graphs = CudaGraphs(device)

    def _network_state(self) -> State:
        return self.parameters | self.buffers

    def _losses(
        self, parameters: State, buffers: State, x: Tensor, y: Tensor, smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Logits of shape (runs, batch, classes), and the cross-entropy of every example, (runs, batch), with labels
        smoothed so much."""
        with autocast(self.training.precision, self.device):
            logits: Tensor = self.forward(parameters, buffers, x)
        logits = at_least_float32(logits)
        losses = functional.cross_entropy(
            logits.flatten(0, 1), y.flatten(), reduction="none", label_smoothing=smoothing
        )
        return logits, losses.view(y.shape)

    def train(self, orders: Tensor, first: int) -> None:
        runs, iterations, batch = orders.shape
        orders = to_device(orders, self.device)
        places = self.examples["train"].rows.gather(1, orders.flatten(1)).view(runs, iterations, batch)
        self.network.train()
        rates = optimizers.learning_rates(self.training, first, iterations).tolist()
        choices = self.augmentation.choices(first, iterations) if self.augmentation else None
        for index, rows in enumerate(places.transpose(0, 1).contiguous()):
            optimizers.set_learning_rate(self.optimizer, rates[index])
            self.rows.copy_(rows)
            if choices is not None:
                self.choice.copy_(choices[index].view_as(self.choice))
            self.graphs.call("step", self._step)

    def _step(self) -> None:
        """One iteration, on the examples in `rows`."""
        examples = self.examples["train"]
        if self.fused_step is not None and not self.augmentation:
            self.fused_step(examples.x, self.rows, examples.labels(self.rows), self.loss_sums)
            return
        x, y = examples.batch(self.rows)
        if self.augmentation:
            x = self.augmentation(x.flatten(0, 1), self.choice.flatten(0, 1)).view_as(x)
        if self.fused_step is not None:
            self.fused_step(x, None, y, self.loss_sums)
            return
        _, losses = self._losses(self.parameters, self.buffers, x, y, self.training.label_smoothing)
        means = losses.mean(1)
        self.optimizer.zero_grad(set_to_none=True)  # a capture that failed may have left gradients
        # The gradient of the sum is, for each run's weights, that of its own loss, even if others are NaN.
        means.sum().backward()  # type: ignore[no-untyped-call]
        self.masked_optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)  # evaluations need the memory
        self.loss_sums += means.detach()

    def take_losses(self) -> list[float]:
        losses: list[float] = self.loss_sums.tolist()
        self.loss_sums.zero_()
        return losses

    def evaluate(self, split_name: SplitName, best: bool = False) -> list[Evaluation]:
        """It waits for the device once."""
        self.network.eval()
        self.graphs.call((split_name, best), functools.partial(self._evaluate, split_name, best))
        count = self.examples[split_name].rows.shape[1]
        return [Evaluation(loss / count, correct / count) for loss, correct in zip(*self.sums.tolist(), strict=True)]

    @torch.no_grad()
    def _evaluate(self, split_name: SplitName, best: bool) -> None:
        """Write to `sums` the sum of the losses and the number of correct examples."""
        examples = self.examples[split_name]
        state = self.best if best else self._network_state()
        parameters = {name: state[name] for name in self.parameters}
        buffers = {name: state[name] for name in self.buffers}
        self.sums.zero_()
        for rows in torch.split(examples.rows, self.evaluation_batch_size, dim=1):
            x, y = examples.batch(rows)
            logits, losses = self._losses(parameters, buffers, x, y)
            self.sums[0] += losses.sum(1)
            self.sums[1] += (logits.argmax(2) == y).sum(1)

    @torch.no_grad()
    def keep_best(self, improved: Sequence[bool]) -> None:
        which = to_device(torch.tensor(improved), self.device)
        for name, current in self._network_state().items():
            best = self.best[name]
            torch.where(which.view(-1, *[1] * (best.ndim - 1)), current, best, out=best)  # no temporary tensor

    def weights(self) -> list[State]:
        states = []
        current = {name: tensor.detach().cpu() for name, tensor in self._network_state().items()}
        for run in range(len(self.rows)):
            # The module knows which of its tensors belong to its state_dict, and which have two names.
            self._set({name: tensor[run] for name, tensor in current.items()})
            states.append({name: t.detach().cpu().clone() for name, t in self.network.state_dict().items()})
        return states

    @torch.no_grad()
    def _set(self, values: State) -> None:
        for name, tensor in [*self.network.named_parameters(), *self.network.named_buffers()]:
            tensor.copy_(values[name])

    def optimizer_states(self) -> list[State]:
        stacked = optimizers.optimizer_state(self.optimizer, self.parameters)
        return [
            {entry: value[run].clone() if value.dim() else value for entry, value in stacked.items()}
            for run in range(len(self.rows))
        ]

    def load_optimizer_states(self, states: Sequence[State]) -> None:
        """Raises `ValueError` unless all optimizers have made equally many steps."""
        stacked = {entry: torch.stack([state[entry] for state in states]) for entry in states[0]}
        for entry, values in stacked.items():
            if entry.startswith("step/"):
                if (values != values[0]).any():
                    raise ValueError("optimizers that have made different numbers of steps cannot be stacked")
                stacked[entry] = values[0]
        optimizers.load_optimizer_state(self.optimizer, self.parameters, stacked)
        self.graphs = CudaGraphs(self.device)  # the others have the former state tensors

    def state_dict(self) -> dict[str, Tensor]:
        tensors = {f"network/{name}": tensor for name, tensor in self._network_state().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()} | {"losses": self.loss_sums}
        return host_copies(tensors) | optimizers.training_state(self.optimizer, self.device)

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, tensor in self._network_state().items():
            tensor.copy_(state[f"network/{name}"])
            self.best[name].copy_(state[f"best/{name}"])
        self.loss_sums.copy_(state["losses"])
        optimizers.restore_training_state(state, self.optimizer, self.device)
        self.graphs = CudaGraphs(self.device)  # the others have the former state tensors
