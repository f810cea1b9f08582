"""Engines answer: each trains runs in its own way. To add one, write it in a file here and name it in `ENGINES`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tombola.engines.eager import Eager
from tombola.errors import unknown
from tombola.outcome import Outcome
from tombola.run import Run
from tombola.store import Checkpoint


class Engine(Protocol):
    """Trains runs. Engines hold no state between runs and can be sent to another process.

    All engines give the same batches and masks, and losses equal to rounding; each is tested against `Eager`.
    """

    @property
    def name(self) -> str:
        """What outcomes record as their engine."""
        ...

    def train(self, run: Run, checkpoint: Checkpoint) -> Outcome:
        """Train `run`, from where `checkpoint` left off if it holds anything, looking up to it now and then."""
        ...


ENGINES: dict[str, Callable[[Path | None, str], Engine]] = {"eager": Eager}
"""Each is called with the folder to look for data in first (or None), and the device."""


def engine(name: str, data_dir: Path | None = None, device: str = "cpu") -> Engine:
    """The engine of that name, on a device. Raises `InputError` for an unknown name."""
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    return ENGINES[name](data_dir, device)
