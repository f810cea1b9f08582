"""Checkpoints: the state of an unfinished training, so that a killed process loses little."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tombola.utils.errors import DamagedFile
from tombola.utils.files import read_tensors, remove_temporary, write_tensors

log = logging.getLogger(__name__)

CHECKPOINT_FORMAT = 2
"""The format of what engines save; it changes when they save something else."""

MAX_SHARE = 0.05
"""The largest share of the time that is spent on writing checkpoints."""


@dataclass
class Checkpoint:
    """The state of an unfinished training, saved from time to time, so that a killed process loses little.

    It is written in a thread while the training continues.
    """

    path: Path
    every: float = 30.0
    """Seconds between saves, at least."""
    _next: float = field(init=False)
    _writer: threading.Thread | None = field(default=None, init=False)
    _failure: Exception | None = field(default=None, init=False)
    """The exception of the last write, until it is raised."""

    def __post_init__(self) -> None:
        self._next = time.monotonic() + self.every

    def due(self) -> bool:
        """Whether it is time to save again; False while the last state is being written. Raises `InputError` if the
        last state could not be written."""
        if self._writer is not None and self._writer.is_alive():
            return False
        self._raise_failure()
        return time.monotonic() >= self._next

    def save(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any], engine: str) -> None:
        """Begin to replace the saved state; only the same `engine` resumes from it. `tensors` must not change
        afterwards. Raises `InputError` if the previous state could not be written."""
        self.wait()
        self._raise_failure()
        contents = {"format": CHECKPOINT_FORMAT, "engine": engine, "state": about}
        self._writer = threading.Thread(target=self._write, args=(tensors, contents))
        self._writer.start()

    def _write(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        began = time.monotonic()
        try:
            self._replace(tensors, about)
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that trains
            self._failure = error
        ended = time.monotonic()
        self._next = ended + max(self.every, (ended - began) / MAX_SHARE)

    def _replace(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Make this the saved state."""
        write_tensors(self.path, tensors, about)

    def wait(self) -> None:
        """Wait until nothing is being written. It does not raise, because a training that has ended must not be lost
        if its last state could not be written."""
        if self._writer is not None:
            self._writer.join()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def load(self, engine: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The state that `engine` saved last, or None.

        A checkpoint that is damaged, or that another engine, device or version wrote, is deleted with a warning: a
        training continued by another engine could not be reproduced.
        """
        self.wait()
        remove_temporary([self.path])
        try:
            tensors, about = read_tensors(self.path)
            if about.get("format") != CHECKPOINT_FORMAT:
                raise DamagedFile(f"the checkpoint {self.path} was written by another version of tombola")
            if about.get("engine") != engine:
                raise DamagedFile(f"the checkpoint {self.path} was written by {about.get('engine')}, not by {engine}")
            return tensors, about["state"]
        except FileNotFoundError:
            return None
        except DamagedFile as error:
            log.warning("%s; the training starts again from its beginning", error)
            self.clear()
            return None

    def part(self, index: int) -> Checkpoint:
        """The checkpoint of a part of the runs. It is cleared with this one."""
        return Checkpoint(self.path.with_stem(f"{self.path.stem}-{index}"), self.every)

    def clear(self) -> None:
        """Delete the saved state, including one that is still being written."""
        self.wait()
        self.path.unlink(missing_ok=True)
        for part in self.path.parent.glob(f"*-*{self.path.suffix}"):  # a pattern for each would be compiled each time
            if part.stem.startswith(f"{self.path.stem}-"):
                part.unlink(missing_ok=True)


class NoCheckpoint(Checkpoint):
    """A checkpoint that saves nothing: a training that ends early is lost."""

    def __init__(self) -> None:
        super().__init__(Path(), math.inf)

    def load(self, engine: str) -> None:
        """There is nothing."""

    def part(self, index: int) -> Checkpoint:  # noqa: ARG002
        """There is nothing of the part either."""
        return self

    def clear(self) -> None:
        """There is nothing to delete."""
