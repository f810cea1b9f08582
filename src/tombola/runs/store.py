"""The store remembers: a run that was answered once is never trained again.

    STORE/runs/ab/abcdef….safetensors        an outcome, under the key of its run
    STORE/unfinished/abcdef….safetensors     where a long training stood when it last looked up
    STORE/locks/abcdef….lock                 held while a process trains that run
    STORE/damaged/…                          entries that could not be read, set aside

An entry appears by one rename, so it is whole or not there, whatever kills the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from tombola.pruning.mask import State
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.files import read_tensors, remove_temporary, write_tensors
from tombola.utils.locks import file_lock

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """Outcomes by the key of their run, in a folder that any number of processes may share."""

    folder: Path
    checkpoint_every: float = 30.0
    """Seconds between the checkpoints of a training."""

    def get(self, run: BaseRun) -> Outcome | None:
        """What came of `run`, or None if it was never trained.

        A damaged entry is set aside, with a warning, and counts as never trained.
        """
        path = self._entry(run.key)
        before = _stamp(path)
        try:
            tensors, about = read_tensors(path)
            if about.get("run") != _plain(run):
                raise DamagedFile(f"{path} holds another run")
            return Outcome.from_tensors(tensors, about)
        except FileNotFoundError:
            return None
        except (DamagedFile, KeyError, TypeError, ValidationError) as error:
            if _stamp(path) != before:
                return self.get(run)  # another process has mended it
            aside = set_aside(path, self.folder / "damaged")
            log.warning("%s; it is set aside as %s and will be trained again", error, aside)
            return None

    def recall(self, key: str, /, *, optimizer: bool = False) -> State:
        """The weights that the run of that key ended with, or what its optimizer remembered.

        Raises `LookupError` if it is not there, or damaged.
        """
        try:
            tensors, about = read_tensors(self._entry(key))
            outcome = Outcome.from_tensors(tensors, about)
            return outcome.optimizer if optimizer else outcome.final
        except (FileNotFoundError, DamagedFile) as error:
            reason = "is not there" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
            raise LookupError(
                f"the store {self.folder}: run {key}, whose weights are to be trained further, {reason}; "
                f"the same command again trains it again"
            ) from error

    def put(self, run: BaseRun, outcome: Outcome) -> None:
        """Remember what came of `run`."""
        tensors, about = outcome.to_tensors(run.mask)
        write_tensors(self._entry(run.key), tensors, about | {"run": _plain(run)})

    @contextmanager
    def claim(self, run: BaseRun) -> Iterator[None]:
        """Hold `run` for this process; another that wants it waits, and then finds it answered.

        The operating system drops the claim of a process that dies.
        """
        path = self.folder / "locks" / f"{run.key}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path):
            for place in (self._entry(run.key), self.checkpoint([run]).path):
                remove_temporary(place.parent, f".{run.key}")
            yield
            # Whoever still waits for this very file looks the run up next, and finds it.
            with contextlib.suppress(OSError):  # Windows keeps files that are open
                path.unlink(missing_ok=True)

    def checkpoint(self, runs: Sequence[BaseRun]) -> Checkpoint:
        """Where `runs`, trained as one, keep their state while they train."""
        name = (
            runs[0].key if len(runs) == 1 else hashlib.sha256("".join(r.key for r in runs).encode()).hexdigest()[:32]
        )
        return Checkpoint(self.folder / "unfinished" / f"{name}.safetensors", self.checkpoint_every)

    def _entry(self, key: str) -> Path:
        return self.folder / "runs" / key[:2] / f"{key}.safetensors"


def check_writable(folder: Path) -> None:
    """Make the folder of a store. Raises `InputError` when it cannot be written."""
    try:
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)  # another process may be as quick
            (folder / ".gitignore").write_text("*\n", encoding="utf-8")
        (folder / "runs").mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"the store {folder} cannot be written: {error.strerror}") from error


def _plain(run: BaseRun) -> Any:
    """The run's description as it comes back from JSON (tuples become lists)."""
    return json.loads(json.dumps(run.description))


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes when another file takes the path; None where there is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def set_aside(path: Path, folder: Path) -> Path:
    """Move a damaged file out of the way, keeping it for whoever wants to know what happened."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"{path.stem}.{time.time_ns()}{path.suffix}"
    with contextlib.suppress(FileNotFoundError):  # another process did it
        path.replace(aside)
    return aside


CHECKPOINT_FORMAT = 1
"""Of what the engines save; it changes when they save something else."""


@dataclass
class Checkpoint:
    """The state of a training under way, written now and then, so that a kill costs little."""

    path: Path
    every: float = 30.0
    """Seconds between writes."""
    _last: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() - self._last >= self.every

    def save(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any], engine: str) -> None:
        """Replace what was saved before. Only the same `engine` will go on from it."""
        write_tensors(self.path, tensors, {"format": CHECKPOINT_FORMAT, "engine": engine, "state": about})
        self._last = time.monotonic()

    def load(self, engine: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What `engine` saved last, or None.

        A checkpoint that is damaged, or was written by another engine, device or version, is dropped with a
        warning: half a training here and half there is one that nobody could repeat.
        """
        try:
            tensors, about = read_tensors(self.path)
            written_by = (about.get("format"), about.get("engine"))
            if written_by != (CHECKPOINT_FORMAT, engine):
                raise DamagedFile(f"the checkpoint {self.path} was written by {written_by[1]}, not by {engine}")
            return tensors, about["state"]
        except FileNotFoundError:
            return None
        except DamagedFile as error:
            log.warning("%s; that training starts over", error)
            self.clear()
            return None

    def clear(self) -> None:
        """Forget what was saved."""
        self.path.unlink(missing_ok=True)
