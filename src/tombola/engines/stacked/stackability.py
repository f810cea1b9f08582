"""Which runs can be stacked, and how many of them a device has memory for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.engines.eager import reproducible
from tombola.engines.module_learner import EVALUATION_BATCH, ModuleLearner
from tombola.engines.stacked.ensemble import EnsembleLearner
from tombola.engines.training_loop import Learner
from tombola.pruning.mask import Mask, State
from tombola.runs.run import Run
from tombola.runs.training import Training
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.split import ExampleSet, Split
from tombola.zoo.models import build
from tombola.zoo.models.description import Start

CPU = torch.device("cpu")
CPU_MEMORY = 64 * 2**20
"""Bytes that a stack takes on a CPU: what a larger network does in one matrix product keeps a core busy alone."""
CPU_RUNS = 32
CUDA_SHARE = 0.7
"""Of the free memory of a GPU; the rest is for the libraries' own, and for what the estimate does not see."""
EVALUATION_SHARE = 1 / 16
"""Of a device's whole memory, for what an evaluation keeps at once. Not of the free memory: the number of examples
that are summed at once shows in the last bits of a loss."""

TRIAL = 4
"""How many examples the networks are tried on."""


def refusal(run: Run) -> str | None:
    """Why runs shaped like `run` cannot be stacked, in one line, or None if they can.

    Two of them are trained for two iterations on made-up examples, on the CPU: stacked, and each by itself. Of deep
    networks, batch normalisation over few examples blows rounding up, so what differs is tried with double precision.
    """
    try:
        if _trains_alike(run, torch.float32):
            return None
    except Exception as error:  # noqa: BLE001 - vmap and modules raise all kinds
        return (str(error).splitlines() or [type(error).__name__])[0]
    with contextlib.suppress(Exception):  # a module may insist on single precision
        if _trains_alike(run, torch.float64):
            return None
    return "stacked, it does not train as it does alone: something outside its parameters and buffers changes"


def _trains_alike(run: Run, kind: torch.dtype) -> bool:
    """Whether two runs come out the same, stacked and alone; or differently each time, by noise of their own."""
    runs = [_trial(run, seed) for seed in (0, 1)]
    x, y = _made_up(run.start)
    examples = ExampleSet(x.to(kind), y)
    split = Split(examples, examples, examples)

    def alone(noise: int) -> list[State]:
        learners = [ModuleLearner(build(trial.start).to(kind), trial, split, CPU) for trial in runs]
        return [state for learner in learners for state in _tried(learner, 1, noise)]

    learner = EnsembleLearner([build(trial.start).to(kind) for trial in runs], runs, [split] * 2, CPU)
    stacked, expected = _tried(learner, 2, noise=0), alone(noise=0)
    return _close(stacked, expected) or not _close(expected, alone(noise=1))


def _trial(run: Run, seed: int) -> Run:
    """A short training of the same network, from other weights."""
    return Run(
        start=Start(network=run.start.network, seed=seed),
        mask=Mask({}),
        data=Data(name="made up", digest="", seed=0, validation=1),
        training=Training(optimizer="sgd", lr=0.01, batch_size=TRIAL, length=run.training.length),
        seed=0,
    )


def _made_up(start: Start) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(TRIAL, *start.network.inputs, generator=generator)
    return x, torch.arange(TRIAL) % start.network.classes


def _tried(learner: Learner, runs: int, noise: int) -> list[State]:
    """The weights after two iterations, and the validation loss beside them."""
    with reproducible(noise, CPU):
        learner.train(torch.arange(TRIAL).expand(runs, 2, TRIAL), 0)
        scores = learner.evaluate("validation")
        return [
            weights | {"loss": torch.tensor(score.loss)}
            for weights, score in zip(learner.weights(), scores, strict=True)
        ]


def _close(some: Sequence[State], others: Sequence[State]) -> bool:
    return all(
        torch.allclose(a[name].double(), b[name].double(), rtol=1e-3, atol=1e-5, equal_nan=True)
        for a, b in zip(some, others, strict=True)
        for name in a
    )


@dataclass(frozen=True)
class StackCost:
    """What a run in a stack takes, in bytes."""

    fixed: int
    """For its weights, gradients, best weights and masks; for the optimizer; for examples that are its own."""
    example: int
    """For each example of a batch: what is kept of the forward pass for the backward pass."""


def cost(run: Run, split: Split) -> StackCost:
    """What runs shaped like `run` take, measured by a forward pass."""
    network = build(run.start)
    size = sum(tensor.nbytes for tensor in [*network.parameters(), *network.buffers()])
    optimizer_states = 2 if run.training.optimizer == "adam" else int(run.training.momentum > 0)
    own = split.validation.x.nbytes
    if run.data.scale == "standard" and run.data.mean is None:  # by the training examples of each split
        own += split.train.x.nbytes + split.test.x.nbytes
    rows = 8 * (len(split.train) + len(split.validation) + len(split.test))
    x, y = _made_up(run.start)
    with reproducible(0, CPU):
        kept = _kept_for_backward(network, lambda: functional.cross_entropy(network(x), y))
    # weights, gradients, best weights and masks: four times the network's size
    return StackCost((4 + optimizer_states) * size + own + rows, -(-kept // TRIAL))


def _kept_for_backward(network: nn.Module, loss: Callable[[], Tensor]) -> int:
    """The bytes that autograd keeps for the backward pass of `loss`, but for the network's own tensors."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*network.parameters(), *network.buffers()]}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = loss()
    del result  # only now may memory be used again, and an address stand for another tensor
    return sum(kept.values())


def together(run: Run, cost: StackCost, split: Split, device: torch.device) -> int:
    """How many runs like `run` are stacked on `device`; at least one.

    As many as fit, each taking its fixed cost and twice (for gradients) that of a batch, into the memory there is.
    """
    each = cost.fixed + 2 * cost.example * run.training.batch_size
    if device.type != "cuda":
        return max(1, min(CPU_RUNS, CPU_MEMORY // each))
    free, total = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # of earlier stacks
    shared = split.train.x.nbytes + split.test.x.nbytes
    return max(1, int(CUDA_SHARE * free - shared - EVALUATION_SHARE * total) // each)


def at_once(runs: int, cost: StackCost, device: torch.device) -> int:
    """How many examples of each of `runs` runs are evaluated at once."""
    memory = CPU_MEMORY
    if device.type == "cuda":
        memory = int(EVALUATION_SHARE * torch.cuda.mem_get_info(device)[1])
    return max(1, min(EVALUATION_BATCH, memory // (runs * max(1, cost.example))))
