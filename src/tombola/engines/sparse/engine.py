"""The sparse engine: on a CPU, computes with the kept weights only."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tombola.engines.determinism import reproducible
from tombola.engines.eager import Eager
from tombola.engines.training_loop import Capacity, TrainingLoop, run_to_end
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.initial_state import StateLoader, masked_network, no_stored_states
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.utils.errors import InputError
from tombola.utils.seeds import Purpose, derive
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.split import Split
from tombola.zoo.models import build
from tombola.zoo.models.description import Start

if TYPE_CHECKING:
    from tombola.engines.sparse.speeds import Speed
    from tombola.engines.sparse.stack import Stack

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sparse:
    """Trains one run after another, each on one thread, in time that follows the number of kept weights.

    Stacks of linear layers train entirely in compiled code (`stack_kernels`). In all other modules, layers are made
    sparse where that is faster (`sparsify`). Without numba it trains as `Eager` does, with a warning.
    """

    data_dir: str | Path | None = None
    device: str = "cpu"

    def capacity(self, run: Run) -> Capacity:
        # Compiled code releases the interpreter's lock.
        return Capacity(threads=not _why_dense(run) and not isinstance(_stack(run), str))

    def train(
        self, runs: Sequence[Run], checkpoint: Checkpoint, load_state: StateLoader = no_stored_states
    ) -> list[Outcome]:
        (run,) = runs
        if reason := _why_dense(run):
            _warn_once(f"{reason}: training dense")
            return Eager(self.data_dir, self.device).train(runs, checkpoint, load_state)
        split = prepare(run.data, self.data_dir)
        stack = _stack(run)
        if isinstance(stack, str):
            return self._train_module(run, split, checkpoint, load_state)
        return self._train_stack(run, stack, split, checkpoint, load_state)

    def _train_stack(
        self, run: Run, stack: Stack, split: Split, checkpoint: Checkpoint, load_state: StateLoader
    ) -> list[Outcome]:
        from tombola.engines.sparse.stack_learner import StackLearner

        learner = StackLearner(stack, masked_network(run, load_state).state_dict(), run, split)
        return run_to_end(TrainingLoop([run], learner, len(split.train), load_state), checkpoint, self._name("loop"))

    def _train_module(self, run: Run, split: Split, checkpoint: Checkpoint, load_state: StateLoader) -> list[Outcome]:
        from tombola.engines.sparse.sparsify import SparsifiedLearner, sparsify
        from tombola.engines.sparse.speeds import Speeds

        with reproducible(derive(run.seed, Purpose.NOISE), torch.device(self.device)):
            network = masked_network(run, load_state)
            inputs, _ = split.train[torch.arange(run.training.batch_size)]
            sparsified, dense = sparsify(network, run.mask, inputs, Speeds.default())
            for name, reason in dense.items():
                log.info("%s stays dense: %s", name, reason)
            learner = SparsifiedLearner(sparsified, run, split, torch.device(self.device))
            how = f"layers {', '.join(sparsified.layers)}" if sparsified.layers else "no layer"
            return run_to_end(TrainingLoop([run], learner, len(split.train), load_state), checkpoint, self._name(how))

    def _name(self, how: str) -> str:
        from tombola.engines.sparse.speeds import versions

        return f"sparse ({how}) on {self.device}, {versions()}"


def _why_dense(run: Run) -> str | None:
    """Why `run` cannot be trained sparse here, or None if it can."""
    if run.training.precision == "bf16":
        return "the sparse engine computes in float32 only"
    return _why_unavailable()


@functools.cache
def _why_unavailable() -> str | None:
    try:
        import tombola.engines.sparse.stack_kernels  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        return f"the sparse engine needs numba, which cannot be imported ({error})"
    return None


_STACKS: dict[str, Stack | str] = {}
"""By the network's description: building a network takes time, and the conductor asks often."""


def _stack(run: Run) -> Stack | str:
    """The stack of linear layers that the compiled loop trains, or why it cannot."""
    from tombola.engines.sparse.stack import recognise_stack

    if run.data.augmented:
        return "its images are augmented"
    network = run.start.network
    key = network.model_dump_json()
    if key not in _STACKS:
        _STACKS[key] = recognise_stack(build(Start(network=network, seed=0)))
    stack = _STACKS[key]
    if not isinstance(stack, str) and (others := run.mask.keys() - {layer.weight for layer in stack.layers}):
        return f"{min(others)} can be pruned, which is not the weight of a layer"
    return stack


def known_speeds() -> tuple[Path, list[Speed]]:
    """The measured speeds of layers, on this machine and others, and the file that stores them. Raises `InputError`
    without numba."""
    if reason := _why_unavailable():
        raise InputError(reason)
    from tombola.engines.sparse.speeds import Speeds

    speeds = Speeds.default()
    return speeds.path, speeds.all()


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)
