"""The stacked engine: many runs of one shape trained as one, which is how a GPU is kept busy with small networks."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tombola.engines.capacity import Capacity
from tombola.engines.eager import Eager, reproducible
from tombola.engines.precision import matmul_precision
from tombola.engines.stacked.ensemble import EnsembleLearner
from tombola.engines.stacked.stackability import StackCost, at_once, cost, refusal, together
from tombola.engines.training_loop import TrainingLoop, run_to_end
from tombola.runs.initial_state import Recall, masked_network, no_earlier_runs
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.runs.store import Checkpoint
from tombola.utils.seeds import Purpose, derive
from tombola.zoo.datasets import prepare

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stacked:
    """Trains runs of one shape along a first axis of every tensor, as many as there is memory for. Networks that
    cannot be stacked are trained by `Eager`, one by one, and their outcomes say so.

    What stands beside a run in a stack may show in the last bits of its weights, and decides its dropout noise; the
    same stack gives the same bits. Which runs share a stack depends on what else is asked for at the time: on the
    number of workers, the memory, and where an experiment was interrupted. On CUDA, iterations are replayed as a CUDA
    graph.
    """

    data_dir: Path | None = None
    device: str = "cpu"

    @property
    def name(self) -> str:
        """`stacked`, the device, and the version of torch: what the bits of a result may depend on."""
        return f"stacked on {self.device}, torch {torch.__version__}"

    def capacity(self, run: Run) -> Capacity:
        """See `tombola.engines.Engine`. The first call for a shape tries its network; further ones only look up."""
        return Capacity(together=self._limits(run).together)

    def train(self, runs: Sequence[Run], checkpoint: Checkpoint, recall: Recall = no_earlier_runs) -> list[Outcome]:
        """Train `runs` as one; see `tombola.engines.Engine`."""
        limits = self._limits(runs[0])
        if limits.cost is None:
            return Eager(self.data_dir, self.device).train(runs, checkpoint, recall)
        device = torch.device(self.device)
        training = runs[0].training
        prepared = {data: prepare(data, self.data_dir) for data in {run.data for run in runs}}
        splits = [prepared[run.data] for run in runs]
        with reproducible(noise(runs), device), matmul_precision(training.precision, device):
            networks = [masked_network(run, recall) for run in runs]
            examples = at_once(len(runs), limits.cost, device)
            learner = EnsembleLearner(networks, runs, splits, device, examples)
            del networks  # one copy of the weights is enough
            return run_to_end(TrainingLoop(runs, learner, len(splits[0].train), recall), checkpoint, self.name)

    def _limits(self, run: Run) -> Limits:
        key = (run.shape, self.data_dir, self.device)
        if key not in _LIMITS:
            _LIMITS[key] = _find_limits(run, self.data_dir, torch.device(self.device))
        return _LIMITS[key]


def noise(runs: Sequence[Run]) -> int:
    """The seed of the noise in a stack; of one run, that which the run has in any engine."""
    return derive(runs[0].seed, Purpose.NOISE, *(run.seed for run in runs[1:]))


@dataclass(frozen=True)
class Limits:
    """What is known of a shape."""

    together: int
    cost: StackCost | None
    """None if such runs cannot be stacked."""


_LIMITS: dict[tuple[object, ...], Limits] = {}
"""By shape, folder of data and device: trying a network takes some time, and the conductor asks often."""


_REFUSALS: dict[str, str | None] = {}
"""By network: the trial depends on nothing else."""


def _find_limits(run: Run, data_dir: Path | None, device: torch.device) -> Limits:
    key = run.start.network.model_dump_json()
    if key not in _REFUSALS:
        _REFUSALS[key] = refusal(run)
    if reason := _REFUSALS[key]:
        if multiprocessing.parent_process() is None:  # not once more in each worker
            log.warning('runs of "%s" are trained one by one: %s', run.start.network.name, reason)
        return Limits(1, None)
    split = prepare(run.data, data_dir)
    measured = cost(run, split)
    return Limits(together(run, measured, split, device), measured)
