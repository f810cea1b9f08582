"""The stacked engine: trains many runs of one shape as one, to keep a GPU busy with small networks."""

from __future__ import annotations

import gc
import logging
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tombola.engines.determinism import device_and_version, reproducible
from tombola.engines.eager import Eager
from tombola.engines.precision import matmul_precision
from tombola.engines.running_statistics import recompute_statistics
from tombola.engines.stacked import stackability
from tombola.engines.stacked.ensemble import EnsembleLearner
from tombola.engines.stacked.stackability import StackCost
from tombola.engines.stacked.triton_support import triton_version
from tombola.engines.training_loop import Capacity, TrainingLoop, run_to_end
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.initial_state import StateLoader, masked_network, no_stored_states
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.utils.seeds import Purpose, derive
from tombola.zoo.datasets import prepare

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stacked:
    """Stacks runs of one shape along the first axis of every tensor, as many as fit into memory. Networks that cannot
    be stacked are trained by `Eager`, one by one, and their outcomes name that engine.

    The other runs of a stack may change the last bits of a run's weights, and determine its dropout noise; the same
    stack gives the same bits. Which runs share a stack depends on the number of workers, the memory, and where an
    experiment was interrupted. On CUDA, iterations are replayed as a CUDA graph. A stack that turns out not to fit
    into a GPU's memory is trained in halves.
    """

    data_dir: str | Path | None = None
    device: str = "cpu"
    sharing: int = 1
    """How many workers share the device."""

    @property
    def name(self) -> str:
        """`stacked`, and what else the bits of a result may depend on."""
        device = torch.device(self.device)
        triton = triton_version(device)
        return f"stacked on {device_and_version(device)}" + (f", triton {triton}" if triton else "")

    def capacity(self, run: Run) -> Capacity:
        """The first call for a shape tests its network, which takes time."""
        return Capacity(max_runs=self._limits(run)[0])

    def train(
        self, runs: Sequence[Run], checkpoint: Checkpoint, load_state: StateLoader = no_stored_states
    ) -> list[Outcome]:
        """Train `runs` as one."""
        limit, cost = self._limits(runs[0])
        if cost is None:
            return Eager(self.data_dir, self.device, self.sharing).train(runs, checkpoint, load_state)
        if len(runs) <= limit:  # who asks may not know that it has become less
            try:
                return self._train(runs, cost, checkpoint, load_state)
            except torch.cuda.OutOfMemoryError:
                if len(runs) == 1:
                    raise
            # Not in the `except` block, in which the error keeps the stack alive.
            self._lower_limit(runs, cost)
        half = -(-len(runs) // 2)
        parts = [(runs[:half], checkpoint.part(0)), (runs[half:], checkpoint.part(1))]
        return [outcome for some, part in parts for outcome in self.train(some, part, load_state)]

    def _lower_limit(self, runs: Sequence[Run], cost: StackCost) -> None:
        half = -(-len(runs) // 2)
        log.warning(
            "%d runs do not fit into the memory of %s: stacks of %d are trained", len(runs), self.device, half
        )
        _LIMITS[self._limits_key(runs[0])] = half, cost
        gc.collect()
        torch.cuda.empty_cache()

    def _train(
        self, runs: Sequence[Run], cost: StackCost, checkpoint: Checkpoint, load_state: StateLoader
    ) -> list[Outcome]:
        device = torch.device(self.device)
        training = runs[0].training
        prepared = {data: prepare(data, self.data_dir) for data in {run.data for run in runs}}
        splits = [prepared[run.data] for run in runs]
        with reproducible(noise_seed(runs), device), matmul_precision(training.precision, device):
            networks = [
                recompute_statistics(masked_network(run, load_state), run, split, device)
                for run, split in zip(runs, splits, strict=True)
            ]
            examples = stackability.stack_evaluation_batch_size(len(runs), cost, device, self.sharing)
            learner = EnsembleLearner(networks, runs, splits, device, examples)
            del networks  # one copy of the weights is enough
            return run_to_end(TrainingLoop(runs, learner, splits[0].train, load_state), checkpoint, self.name)

    def _limits_key(self, run: Run) -> tuple[object, ...]:
        return run.shape, self.data_dir, self.device, self.sharing

    def _limits(self, run: Run) -> tuple[int, StackCost | None]:
        key = self._limits_key(run)
        if key not in _LIMITS:
            _LIMITS[key] = self._stack_limits(run)
        return _LIMITS[key]

    def _stack_limits(self, run: Run) -> tuple[int, StackCost | None]:
        device = torch.device(self.device)
        key = run.start.network.model_dump_json(), self.device
        reason = stackability.why_not_this_training(run.training) or stackability.why_not_these_data(run.data)
        if reason is None and key not in _REASONS:
            _REASONS[key] = stackability.why_not_stackable(run, device)
        if reason := reason or _REASONS[key]:
            if multiprocessing.parent_process() is None:  # workers do not repeat it
                log.warning('runs of "%s" are trained one by one: %s', run.start.network.name, reason)
            return 1, None
        split = prepare(run.data, self.data_dir)
        cost = stackability.measure_cost(run, split)
        return stackability.max_stacked_runs(run, cost, split, device, self.sharing), cost


def noise_seed(runs: Sequence[Run]) -> int:
    """The seed of the random draws in a stack; for a single run the seed that every engine uses."""
    return derive(runs[0].seed, Purpose.NOISE, *(run.seed for run in runs[1:]))


_LIMITS: dict[tuple[object, ...], tuple[int, StackCost | None]] = {}
"""By shape, data folder, device and how many share it: how many runs can be stacked, and their memory, or None if
they cannot. Testing a network takes time, and the conductor asks often."""

_REASONS: dict[tuple[str, str], str | None] = {}
"""Why a network cannot be stacked, or None if it can, by its description and the device."""
