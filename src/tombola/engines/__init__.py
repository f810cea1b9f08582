"""Engines answer: each trains runs in its own way. To add one, write it in a file here and name it in `ENGINES`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch

from tombola.engines.capacity import Capacity
from tombola.engines.eager import Eager
from tombola.engines.stacked import Stacked
from tombola.errors import InputError, unknown
from tombola.outcome import Outcome
from tombola.run import Run
from tombola.store import Checkpoint


class Engine(Protocol):
    """Trains runs. Engines hold no state between runs and can be sent to another process.

    All engines give the same batches and masks, and losses equal to rounding; each is tested against `Eager`.
    """

    @property
    def name(self) -> str:
        """What outcomes and checkpoints record of who answered: engine, device, version."""
        ...

    def capacity(self, run: Run) -> Capacity:
        """How it likes to be given `run`, and others of the same `Run.shape`."""
        ...

    def train(self, runs: Sequence[Run], checkpoint: Checkpoint) -> list[Outcome]:
        """Train `runs`, which are of one shape and no more than the engine's capacity.

        It goes on from where `checkpoint` left off, if that holds anything, and looks up to it now and then.
        """
        ...


ENGINES: dict[str, Callable[[Path | None, str], Engine]] = {"eager": Eager, "stacked": Stacked}
"""Each is called with the folder to look for data in first (or None), and the device."""


def engine(name: str, data_dir: Path | None = None, device: str = "cpu") -> Engine:
    """The engine of that name, on a device: `cpu`, `cuda` or `cuda:N`.

    Raises `InputError` for an unknown name, and for a device that is not there.
    """
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if match is None:
        raise unknown("device", device, ["cpu", "cuda", "cuda:0"])
    if device != "cpu" and int(match[1] or 0) >= torch.cuda.device_count():
        raise InputError(f'device "{device}" is not there: torch sees {torch.cuda.device_count()} CUDA devices')
    return ENGINES[name](data_dir, device)
