"""Engines train runs, each in its own way. To add one, write a module here and list it in `ENGINES`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from tombola.engines.determinism import fix_cublas_workspace
from tombola.engines.eager import Eager
from tombola.engines.sparse.engine import Sparse
from tombola.engines.stacked.engine import Stacked
from tombola.engines.training_loop import Capacity
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.initial_state import StateLoader, no_stored_states
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun, Run
from tombola.utils.errors import InputError, unknown

RunT = TypeVar("RunT", bound=BaseRun, contravariant=True)


class Engine(Protocol[RunT]):
    """Trains runs. Engines hold no state between runs and can be pickled.

    All engines use the same batches and masks, and their losses are equal up to rounding unless the network has
    dropout, whose draws differ between engines. Each engine is tested against `Eager`.
    """

    def capacity(self, run: RunT) -> Capacity:
        """How many runs of the same `Run.shape` as `run` it trains at once, and where."""

    def train(
        self, runs: Sequence[RunT], checkpoint: Checkpoint, load_state: StateLoader = no_stored_states
    ) -> list[Outcome]:
        """Train `runs`, which have one shape and are within the engine's capacity.

        It resumes from `checkpoint` if that has a saved state, and saves to it from time to time. `load_state` loads
        the final states of the earlier runs that `runs` start from.
        """


ENGINES: dict[str, Callable[[str | Path | None, str, int], Engine[Run]]] = {
    "eager": Eager,
    "sparse": lambda data_dir, device, sharing: Sparse(data_dir, device),  # noqa: ARG005 - only on a CPU
    "stacked": Stacked,
}
"""Each is called with the folder to search for data first (or None), the device, and how many workers share it."""

AUTO = "auto"


def engine(
    name: str, data_dir: str | Path | None = None, device: str = AUTO, sharing: int = 1, here: bool = True
) -> Engine[Run]:
    """The engine with this name, or the fastest for `auto`, on a device: `cpu`, `cuda` or `cuda:N`, of which each of
    `sharing` workers uses a share. `auto` is the CPU, because a GPU may be slower: for an experiment
    `tombola.engines.device_choice` estimates it. The device is this machine's, unless the engine is not used `here`.

    Raises `InputError` for an unknown name, and for a device that is missing or that the engine does not support."""
    check_engine(name, device, here)
    if device == AUTO:
        device = "cpu"
    if device != "cpu" and here:
        fix_cublas_workspace()
    if name == AUTO:
        name = "sparse" if device == "cpu" else "stacked"
    return ENGINES[name](data_dir, device, sharing)


def trains_in_threads(engine: Engine[RunT], runs: Iterable[RunT], device: str) -> bool:
    """Whether trainings like `runs` can be parallel in threads of one process. On a GPU none can: plain PyTorch draws
    from its global generator, which threads would share; the engine is not asked, which would use the GPU."""
    return device == "cpu" and all(engine.capacity(run).threads for run in runs)


def check_engine(name: str, device: str, here: bool = True) -> None:
    """Raises `InputError` where `engine` does."""
    if name not in (AUTO, *ENGINES):
        raise unknown("engine", name, [AUTO, *ENGINES])
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", device)
    if match is None:
        raise unknown("device", device, [AUTO, "cpu", "cuda", "cuda:0"])
    if device in (AUTO, "cpu"):
        return
    if here and int(match[1] or 0) >= torch.cuda.device_count():
        raise InputError(f'device "{device}" is not available: torch finds {torch.cuda.device_count()} CUDA devices')
    if name == "sparse":
        raise InputError(
            f'engine "sparse" supports only device "cpu", not "{device}"; "eager" and "stacked" support both'
        )
