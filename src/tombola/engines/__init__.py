"""Engines answer: each trains runs in its own way. To add one, write it in a file here and name it in `ENGINES`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from tombola.engines.capacity import Capacity
from tombola.engines.eager import Eager
from tombola.engines.sparse import Sparse
from tombola.engines.stacked.engine import Stacked
from tombola.runs.initial_state import Recall, no_earlier_runs
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun, Run
from tombola.runs.store import Checkpoint
from tombola.utils.errors import InputError, unknown

Trains = TypeVar("Trains", bound=BaseRun, contravariant=True)


class Engine(Protocol[Trains]):
    """Trains runs. Engines hold no state between runs and can be sent to another process.

    All engines give the same batches and masks, and losses equal to rounding as long as nothing random happens inside
    the network: dropout draws as the engine likes. Each is tested against `Eager`.
    """

    def capacity(self, run: Trains) -> Capacity:
        """How it likes to be given `run`, and others of the same `Run.shape`."""
        ...

    def train(
        self, runs: Sequence[Trains], checkpoint: Checkpoint, recall: Recall = no_earlier_runs
    ) -> list[Outcome]:
        """Train `runs`, which are of one shape and no more than the engine's capacity.

        It goes on from where `checkpoint` left off, if that holds anything, and looks up to it now and then. Weights
        of earlier runs, where `runs` start with some, come from `recall`.
        """
        ...


ENGINES: dict[str, Callable[[Path | None, str], Engine[Run]]] = {"eager": Eager, "sparse": Sparse, "stacked": Stacked}
"""Each is called with the folder to look for data in first (or None), and the device."""


AUTO = "auto"


def engine(name: str, data_dir: Path | None = None, device: str = "cpu") -> Engine[Run]:
    """The engine of that name, or with `auto` the fastest, on a device: `cpu`, `cuda` or `cuda:N`.

    Raises `InputError` for an unknown name, and for a device that is not there or not for this engine.
    """
    if name not in (AUTO, *ENGINES):
        raise unknown("engine", name, [AUTO, *ENGINES])
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if match is None:
        raise unknown("device", device, ["cpu", "cuda", "cuda:0"])
    if device != "cpu" and int(match[1] or 0) >= torch.cuda.device_count():
        raise InputError(f'device "{device}" is not there: torch sees {torch.cuda.device_count()} CUDA devices')
    if name == AUTO:
        name = "sparse" if device == "cpu" else "stacked"
    if name == "sparse" and device != "cpu":
        raise InputError(f'engine "sparse" is for the CPU, not for device "{device}": eager and stacked are for both')
    return ENGINES[name](data_dir, device)
