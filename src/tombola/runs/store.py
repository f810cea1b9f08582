"""The store keeps the outcomes of runs, so that no run is trained twice.

    STORE/runs/ab/abcdef….safetensors        an outcome, under the key of its run
    STORE/unfinished/abcdef….safetensors     the last checkpoint of an unfinished training
    STORE/locks/                             which runs are being trained by whom; see `claims`
    STORE/id                                 tells this store from others
    STORE/damaged/…                          entries that could not be read

An entry is written to a temporary file and renamed, so it is complete or missing, even if the process is killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from pydantic import ValidationError
from torch import Tensor

from tombola.pruning.mask import State
from tombola.runs.claims import Claim, claim
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun, key_of
from tombola.runs.stored_file import StoredFile, remove_stored, stored_files
from tombola.utils.errors import DamagedFile
from tombola.utils.files import atomic_write, read_about, read_tensors, remove_temporary, write_tensors, writing
from tombola.utils.former_names import former_attribute

log = logging.getLogger(__name__)


CHECKPOINT_FORMAT = 2
"""Of what engines save; it changes when they save something else."""

ID = "id"
"""The file with `Store.store_id`."""

MAX_SHARE = 0.05
"""The share of the time that is spent on writing checkpoints, at most."""


@dataclass
class Checkpoint:
    """The state of an unfinished training, saved from time to time, so that a killed process loses little.

    It is written beside the training, in a thread.
    """

    path: Path
    every: float = 30.0
    """Seconds between saves, at least."""
    _next: float = field(init=False)
    _writer: threading.Thread | None = field(default=None, init=False)
    _failure: Exception | None = field(default=None, init=False)
    """Of the last write, until it is raised."""

    def __post_init__(self) -> None:
        self._next = time.monotonic() + self.every

    def due(self) -> bool:
        """Whether it is time to save again; not while the last state is being written. Raises `InputError` if that
        could not be written."""
        if self._writer is not None and self._writer.is_alive():
            return False
        self._raise_failure()
        return time.monotonic() >= self._next

    def save(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any], engine: str) -> None:
        """Begin to replace the saved state; only the same `engine` resumes from it. `tensors` must not change any
        more. Raises `InputError` if the state before could not be written."""
        self.wait()
        self._raise_failure()
        contents = {"format": CHECKPOINT_FORMAT, "engine": engine, "state": about}
        self._writer = threading.Thread(target=self._write, args=(tensors, contents))
        self._writer.start()

    def _write(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        began = time.monotonic()
        try:
            write_tensors(self.path, tensors, about)
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that trains
            self._failure = error
        ended = time.monotonic()
        self._next = ended + max(self.every, (ended - began) / MAX_SHARE)

    def wait(self) -> None:
        """Wait until nothing is being written. It raises nothing: that the last state could not be written is no
        reason to lose a training that has ended."""
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
        """Delete the saved state, also one that is still being written."""
        self.wait()
        self.path.unlink(missing_ok=True)
        for part in self.path.parent.glob(f"{self.path.stem}-*{self.path.suffix}"):
            part.unlink(missing_ok=True)


class NoCheckpoint(Checkpoint):
    """Where nothing can be saved: a training that ends early is lost."""

    def __init__(self) -> None:
        super().__init__(Path(), math.inf)

    def load(self, engine: str) -> None:
        """There is nothing."""

    def part(self, index: int) -> Checkpoint:  # noqa: ARG002
        """There is nothing of the part either."""
        return self

    def clear(self) -> None:
        """There is nothing to delete."""


@dataclass(frozen=True)
class Store:
    """Outcomes by the key of their run, in a folder that several processes may share."""

    folder: Path
    checkpoint_every: float = 30.0
    """Seconds between the checkpoints of a training, at least."""

    def get(self, run: BaseRun) -> Outcome | None:
        """The outcome of `run`, or None if it was never trained. A damaged entry is moved to the folder `damaged`,
        with a warning, and counts as never trained."""
        description = run.description
        key = key_of(description)
        path = self._entry(key)
        before = _stamp(path)
        try:
            outcome, found = self._read(key)
            if found != json.loads(json.dumps(description)):  # JSON turns tuples into lists
                raise DamagedFile(f"{path} is the outcome of another run")
            return outcome
        except FileNotFoundError:
            return None
        except DamagedFile as error:
            if _stamp(path) != before:
                return self.get(run)  # another process has replaced it
            aside = set_aside(path, self.folder / "damaged")
            log.warning("%s; it was moved to %s and the run will be trained again", error, aside)
            return None

    def peek(self, run: BaseRun) -> Outcome | None:
        """The same, but nothing is changed, and nobody is told: a damaged entry stays where it is."""
        description = run.description
        try:
            outcome, found = self._read(key_of(description))
        except (FileNotFoundError, DamagedFile):
            return None
        return outcome if found == json.loads(json.dumps(description)) else None

    recall = former_attribute("recall", "load_state")

    def load_state(self, key: str, /, *, optimizer: bool = False) -> State:
        """The weights that the run with this key ended with, or its optimizer's state. Raises `LookupError` if its
        outcome is missing or damaged."""
        try:
            outcome, _ = self._read(key)
        except (FileNotFoundError, DamagedFile) as error:
            reason = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
            raise LookupError(
                f"the store {self.folder}: parent run {key} {reason}; run the same command again to recompute it"
            ) from error
        return outcome.optimizer if optimizer else outcome.final

    def _read(self, key: str) -> tuple[Outcome, Any]:
        """The outcome of the run with this key, and the run's description. Raises `FileNotFoundError` or
        `DamagedFile`."""
        path = self._entry(key)
        tensors, about = read_tensors(path)
        try:
            return Outcome.from_tensors(tensors, about), about["run"]
        except (KeyError, TypeError, ValidationError) as error:
            raise DamagedFile(f"{path} is not an outcome: {error}") from error

    def put(self, run: BaseRun, outcome: Outcome) -> None:
        """Save the outcome of `run`."""
        tensors, about = outcome.to_tensors(run.mask)
        description = run.description
        write_tensors(self._entry(key_of(description)), tensors, about | {"run": description})

    @contextmanager
    def claim(self, runs: Sequence[BaseRun]) -> Iterator[None]:
        """Hold `runs`, all of them, in this block. Others that want to train one of them wait, and then find its
        outcome. A process that dies holds nothing."""
        keys = [run.key for run in runs]
        with claim(self.folder / "locks", keys):
            remove_temporary(map(self._entry, keys))
            yield

    def claims(self) -> Claim:
        """A claim that holds no run yet, for a process that has runs trained by others."""
        return Claim(self.folder / "locks")

    @property
    def store_id(self) -> str | None:
        """Random text by which a process on another machine sees that it reaches the same store; None if there is no
        store here."""
        try:
            return (self.folder / ID).read_text(encoding="utf-8")
        except OSError:
            return None

    def checkpoint(self, runs: Sequence[BaseRun]) -> Checkpoint:
        """The checkpoint of `runs`, which are trained as one."""
        name = (
            runs[0].key if len(runs) == 1 else hashlib.sha256("".join(r.key for r in runs).encode()).hexdigest()[:32]
        )
        return Checkpoint(self.folder / "unfinished" / f"{name}.safetensors", self.checkpoint_every)

    def files(self) -> Iterator[StoredFile]:
        """All files of the store but those of claims, in order of their paths."""
        return stored_files(self.folder, leave_out="locks")

    def remove(self, file: StoredFile) -> None:
        """Delete a file of the store; nothing if it is gone."""
        remove_stored(self.folder, file)

    def about(self, key: str) -> dict[str, Any]:
        """What is stored with an outcome, its run's description as `run`, without reading any tensor. Raises
        `FileNotFoundError` or `DamagedFile`."""
        with self.file_of(key) as file:
            return read_about(file)

    @contextmanager
    def file_of(self, key: str) -> Iterator[Path]:
        """An outcome as a file, to be read in this block. Raises `FileNotFoundError` if it is missing."""
        yield self._entry(key)

    def put_file(self, key: str, file: Path) -> None:
        """Store an outcome that is in a file of another store."""
        with atomic_write(self._entry(key)) as temporary:
            shutil.copyfile(file, temporary)

    def _entry(self, key: str) -> Path:
        return self.folder / "runs" / key[:2] / f"{key}.safetensors"


def check_writable(folder: Path) -> None:
    """Create the folder of a store. Raises `InputError` if it cannot be written."""
    with writing(f"the store {folder}"):
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)  # another process may create it at the same time
            (folder / ".gitignore").write_text("*\n", encoding="utf-8")
        (folder / "runs").mkdir(exist_ok=True)
        if not (folder / ID).exists():
            with atomic_write(folder / ID) as path:
                path.write_text(uuid.uuid4().hex, encoding="utf-8")
        tempfile.TemporaryFile(dir=folder).close()  # the folder may be from someone else


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes when the file is replaced; None where there is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def set_aside(path: Path, folder: Path) -> Path:
    """Move a damaged file to `folder`, where it can be inspected."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"{path.stem}.{time.time_ns()}{path.suffix}"
    with contextlib.suppress(FileNotFoundError):  # another process moved it
        path.replace(aside)
    return aside


@dataclass(frozen=True)
class DistributedStore(Store):
    """One process' part of a store. A run counts as trained only if every process has its outcome: otherwise some
    would read it while the others wait for them in a collective operation. All processes must ask for the same runs
    in the same order."""

    def get(self, run: BaseRun) -> Outcome | None:
        outcome = super().get(run)
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        found = torch.tensor(int(outcome is not None), device=device)
        distributed.all_reduce(found, distributed.ReduceOp.MIN)
        return outcome if found.item() else None


def first_process() -> bool:
    """Whether this is the first process of a distributed job, or the only one."""
    return not _distributed() or distributed.get_rank() == 0


def _distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def shared_store(folder: Path) -> Store:
    """The store in `folder`; in a distributed job, this process' part of it."""
    if _distributed():
        return DistributedStore(folder / f"process-{distributed.get_rank()}")
    return Store(folder)
