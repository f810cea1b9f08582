"""The eager engine: plain PyTorch for any module on any device. The others are held to what it does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tombola.engines.capacity import Capacity
from tombola.engines.module_learner import ModuleLearner
from tombola.engines.precision import matmul_precision
from tombola.engines.training_loop import TrainingLoop, run_to_end
from tombola.runs.initial_state import Recall, masked_network, no_earlier_runs
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.runs.store import Checkpoint
from tombola.utils.seeds import Purpose, derive
from tombola.zoo.datasets import prepare


@dataclass(frozen=True)
class Eager:
    """Trains one run after another, dense matrices times masks. On a CPU it uses one thread: a run gives the
    same bits however many run side by side, and side by side is where further cores pay."""

    data_dir: Path | None = None
    device: str = "cpu"

    @property
    def name(self) -> str:
        """`eager`, the device, and the version of torch: what the bits of a result may depend on."""
        return f"eager on {self.device}, torch {torch.__version__}"

    def capacity(self, run: Run) -> Capacity:  # noqa: ARG002 - the same for all
        """See `tombola.engines.Engine`."""
        return Capacity()

    def train(self, runs: Sequence[Run], checkpoint: Checkpoint, recall: Recall = no_earlier_runs) -> list[Outcome]:
        """Train the one run in `runs`; see `tombola.engines.Engine`."""
        (run,) = runs
        device = torch.device(self.device)
        split = prepare(run.data, self.data_dir)
        noise = derive(run.seed, Purpose.NOISE)
        with reproducible(noise, device), matmul_precision(run.training.precision, device):
            network = masked_network(run, recall).to(device)
            learner = ModuleLearner(network, run, split, device)
            return run_to_end(TrainingLoop(runs, learner, len(split.train), recall), checkpoint, self.name)


@contextlib.contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Within it, torch draws from a stream of its own and gives the same bits every time.

    On CUDA an operation that has no deterministic implementation warns.
    """
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        torch.set_num_threads(1)
        if cuda:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
            torch.use_deterministic_algorithms(True, warn_only=True)
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
