"""Whether runs can be stacked, and how many fit into a device's memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.engines.determinism import reproducible
from tombola.engines.eager import MAX_EVALUATION_BATCH, ModuleLearner
from tombola.engines.precision import matmul_precision
from tombola.engines.stacked.ensemble import EnsembleLearner
from tombola.engines.training_loop import MAX_STEPS, Learner
from tombola.pruning.mask import Mask, State
from tombola.runs.run import Run, Training
from tombola.utils.text import first_line
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.example_set import ExampleSet, in_memory
from tombola.zoo.datasets.split import Split
from tombola.zoo.models import build
from tombola.zoo.models.description import Start

log = logging.getLogger(__name__)

CPU = torch.device("cpu")
CPU_MEMORY = 64 * 2**20
"""Bytes of a stack on a CPU, at most: a larger network keeps a core busy by itself."""
CPU_RUNS = 32
CUDA_SHARE = 0.7
"""The fraction of a GPU's free memory that a stack uses; the rest is for libraries and errors of the estimate."""
EVALUATION_SHARE = 1 / 16
"""The fraction of a device's total memory for the activations of an evaluation. Not of its free memory, because the
number of examples evaluated at once changes the last bits of a loss."""

TRIAL_BATCH = 4
"""Examples in a batch of the test trainings."""


def why_not_this_training(training: Training) -> str | None:
    """Why runs with these options cannot be stacked, whatever their network, in one line, or None if they can."""
    options = [name for name in ("mixup", "ema", "clip_norm") if getattr(training, name)]
    if options:
        return f"stacks do not take {', '.join(options)}"
    if training.custom_optimizer:
        return f'stacks do not take the optimizer "{training.optimizer}"'
    return None


def why_not_these_data(data: Data) -> str | None:
    """Why runs with these data cannot be stacked, in one line, or None if they can."""
    if data.stream:
        return "stacks need all examples in memory"
    return "stacks do not take resized_crop" if data.resized_crop is not None else None


def why_not_stackable(run: Run, device: torch.device = CPU) -> str | None:
    """Why runs with the network of `run` cannot be stacked on `device`, in one line, or None if they can.

    Two of them are trained there for two iterations on random examples: stacked, and one by one. In deep networks,
    batch normalisation over few examples amplifies rounding, so a difference is tested in double precision. Raises
    `torch.cuda.OutOfMemoryError`, which is no property of the network.
    """
    try:
        if _trains_alike(run, torch.float32, device):
            return None
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - vmap and modules raise all kinds of errors
        return first_line(error)
    try:
        if _trains_alike(run, torch.float64, device):
            return None
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception:  # a module may require single precision
        log.debug("a trial in double precision failed", exc_info=True)
    return "its stacked training differs: it has state outside its parameters and buffers"


def _trains_alike(run: Run, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether two runs give the same weights stacked and one by one, or draw random numbers, which differ anyway."""
    runs = [_trial_run(run, seed) for seed in (0, 1)]
    x, y = _random_examples(run.start)
    examples = ExampleSet(x.to(dtype), y)
    split = Split(examples, examples, examples)

    def one_by_one(seed: int) -> list[State]:
        learners = [ModuleLearner(build(trial.start).to(device, dtype), trial, split, device) for trial in runs]
        return [state for learner in learners for state in _trained_states(learner, 1, seed, device)]

    learner = EnsembleLearner(
        [build(trial.start).to(dtype) for trial in runs], runs, [split] * 2, device, kernels=False
    )
    stacked, expected = _trained_states(learner, 2, 0, device), one_by_one(seed=0)
    return _all_close(stacked, expected) or not _all_close(expected, one_by_one(seed=1))


def _trial_run(run: Run, seed: int) -> Run:
    """A training of the same network on random examples, from initial weights drawn by `seed`."""
    return Run(
        start=Start(network=run.start.network, seed=seed),
        mask=Mask({}),
        data=Data(name="made up", digest="", seed=0, validation=1),
        training=Training(optimizer="sgd", lr=0.01, batch_size=TRIAL_BATCH, length=run.training.length),
        seed=0,
    )


def _random_examples(start: Start) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(TRIAL_BATCH, *start.network.inputs, generator=generator)
    return x, torch.arange(TRIAL_BATCH) % start.network.classes


def _trained_states(learner: Learner, runs: int, seed: int, device: torch.device) -> list[State]:
    """The weights and the validation loss after two iterations."""
    with reproducible(seed, device), matmul_precision("fp32", device):
        learner.train(torch.arange(TRIAL_BATCH).expand(runs, 2, TRIAL_BATCH), 0)
        scores = learner.evaluate("validation")
        return [
            weights | {"loss": torch.tensor(score.loss)}
            for weights, score in zip(learner.weights(), scores, strict=True)
        ]


def _all_close(some: Sequence[State], others: Sequence[State]) -> bool:
    return all(
        torch.allclose(a[name].double(), b[name].double(), rtol=1e-3, atol=1e-5, equal_nan=True)
        for a, b in zip(some, others, strict=True)
        for name in a
    )


@dataclass(frozen=True)
class StackCost:
    """The memory of one run in a stack, in bytes."""

    fixed: int
    """Of weights, gradients, best weights, optimizer, masks, and examples that runs do not share."""
    example: int
    """Of the activations kept for the backward pass, per example of a batch."""


def measure_cost(run: Run, split: Split) -> StackCost:
    """The memory of runs of the shape of `run`, measured by a forward pass."""
    network = build(run.start)
    size = sum(tensor.nbytes for tensor in [*network.parameters(), *network.buffers()])
    optimizer_states = 2 if run.training.optimizer in ("adam", "adamw") else int(run.training.momentum > 0)
    unshared = in_memory(split.validation).x.nbytes
    if run.data.scale == "standard" and run.data.mean is None:  # standardised by each split's own statistics
        unshared += in_memory(split.train).x.nbytes + in_memory(split.test).x.nbytes
    steps = min(MAX_STEPS, run.training.evaluate_every.iterations)
    batches = 3 * 8 * steps * run.training.batch_size  # indices of the next iterations, two copies of them
    rows = 8 * (len(split.train) + len(split.validation) + len(split.test)) + batches
    x, y = _random_examples(run.start)
    with reproducible(0, CPU):
        kept = _kept_for_backward(network, lambda: functional.cross_entropy(network(x), y))
    # Weights, gradients, best weights, and masks: without kernels these have the width of weights.
    return StackCost((4 + optimizer_states) * size + unshared + rows, -(-kept // TRIAL_BATCH))


def _kept_for_backward(network: nn.Module, loss: Callable[[], Tensor]) -> int:
    """The bytes that autograd keeps for the backward pass of `loss`, without the network's own tensors."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*network.parameters(), *network.buffers()]}
    kept: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        result = loss()
    del result  # not earlier, or freed memory could be reused and an address counted once for two tensors
    return sum(kept.values())


def max_stacked_runs(run: Run, cost: StackCost, split: Split, device: torch.device, sharing: int = 1) -> int:
    """How many runs of the shape of `run` are stacked on `device`; at least one. As many as fit into its memory, each
    with its fixed cost and twice (for gradients) that of a batch. `sharing` processes use the device alike."""
    each = cost.fixed + 2 * cost.example * run.training.batch_size
    if device.type != "cuda":
        return max(1, min(CPU_RUNS, CPU_MEMORY // each))
    free, total = _memory(device, sharing)
    shared = in_memory(split.train).x.nbytes + in_memory(split.test).x.nbytes
    return max(1, int(CUDA_SHARE * free - shared - EVALUATION_SHARE * total) // each)


_MOST_FREE: dict[torch.device, int] = {}
"""The most bytes that were free on a device. Later less is, because workers have taken their parts."""


def _memory(device: torch.device, sharing: int) -> tuple[int, int]:
    """The free and the total memory of one of the processes that share `device`, in bytes."""
    free, total = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # of earlier stacks
    _MOST_FREE[device] = max(free, _MOST_FREE.get(device, 0))
    # What is free says little where other workers may have taken their parts already.
    return (_MOST_FREE[device] if sharing == 1 else total // sharing), total // sharing


def stack_evaluation_batch_size(runs: int, cost: StackCost, device: torch.device, sharing: int = 1) -> int:
    """How many examples of each of `runs` runs are evaluated at once."""
    memory = CPU_MEMORY
    if device.type == "cuda":
        memory = int(EVALUATION_SHARE * torch.cuda.mem_get_info(device)[1] / sharing)
    return max(1, min(MAX_EVALUATION_BATCH, memory // (runs * max(1, cost.example))))
