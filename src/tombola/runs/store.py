"""The store keeps the outcomes of runs, so that no run is trained twice.

    STORE/runs/ab/abcdef….safetensors        an outcome, under the key of its run
    STORE/unfinished/abcdef….safetensors     the last checkpoint of an unfinished training
    STORE/locks/                             the runs that each process is training; see `claims`
    STORE/claims/                            the same on a network file system; see `hint_claims`
    STORE/damaged/…                          entries that could not be read
    STORE/id                                 distinguishes this store from others

An entry is written to a temporary file and renamed, so it is complete or missing, even if the process is killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tombola.pruning.mask import State
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.claims import Claim, KeyClaim, hold
from tombola.runs.hint_claims import HintClaim
from tombola.runs.objects import FolderObjects
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun, key_of
from tombola.runs.stored_file import StoredFile, remove_stored, stored_files
from tombola.utils.errors import DamagedFile
from tombola.utils.files import atomic_write, read_about, read_tensors, remove_temporary, write_tensors, writing
from tombola.utils.former_names import former_attribute
from tombola.utils.network_folders import network_file_system

log = logging.getLogger(__name__)

ID = "id"
"""The file with `Store.store_id`."""


@dataclass(frozen=True)
class Store:
    """Outcomes by the key of their run, in a folder that several processes may share."""

    folder: Path
    checkpoint_every: float = 30.0
    """The minimum number of seconds between the checkpoints of a training."""

    @property
    def place(self) -> str:
        """The location of the store: a folder or a URL."""
        return str(self.folder)

    @property
    def store_id(self) -> str | None:
        """A text by which a process on another machine can check that it reaches the same store; None if there is no
        store here."""
        try:
            return (self.folder / ID).read_text(encoding="utf-8")
        except OSError:
            return None

    def exists(self) -> bool:
        """Whether there is a store."""
        return (self.folder / "runs").is_dir()

    def check_writable(self) -> None:
        """Create the store if it does not exist. Raises `InputError` if it cannot be written."""
        folder = self.folder
        with writing(f"the store {folder}"):
            if not folder.exists():
                folder.mkdir(parents=True, exist_ok=True)  # another process may create it at the same time
                (folder / ".gitignore").write_text("*\n", encoding="utf-8")
            (folder / "runs").mkdir(exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()  # the folder may belong to another user
            if not (folder / ID).exists():
                with atomic_write(folder / ID) as path:
                    path.write_text(uuid.uuid4().hex, encoding="utf-8")

    def get(self, run: BaseRun, *, fresh: bool = False) -> Outcome | None:
        """The outcome of `run`, or None if it was never trained. A damaged entry is moved to the folder `damaged`,
        with a warning, and counts as never trained. With `fresh`, outcomes that others have stored until now are
        found, because the run would otherwise be trained again; in a folder they are always found."""
        description = run.description
        key = key_of(description)
        before = _stamp(self._entry(key))
        try:
            outcome, found = self._read(key)
            if found != json.loads(json.dumps(description)):  # JSON turns tuples into lists
                raise DamagedFile(f"{self._entry_name(key)} is the outcome of another run")
            return outcome
        except FileNotFoundError:
            return None
        except DamagedFile as error:
            aside = self._set_aside(key, before)
            if aside is None:
                return self.get(run, fresh=fresh)  # another process has replaced it
            log.warning("%s; it was moved to %s and the run will be trained again", error, aside)
            return None

    def peek(self, run: BaseRun) -> Outcome | None:
        """The same as `get`, but without changes or warnings: a damaged entry stays where it is."""
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
                f"the store {self.place}: parent run {key} {reason}; run the same command again to recompute it"
            ) from error
        return outcome.optimizer if optimizer else outcome.final

    def _read(self, key: str) -> tuple[Outcome, Any]:
        """The outcome of the run with this key, and the run's description. Raises `FileNotFoundError` or
        `DamagedFile`."""
        return self._read_file(self._entry(key), key)

    def _read_file(self, path: Path, key: str) -> tuple[Outcome, Any]:
        tensors, about = read_tensors(path)
        try:
            return Outcome.from_tensors(tensors, about), about["run"]
        except (KeyError, TypeError, ValidationError) as error:
            raise DamagedFile(f"{self._entry_name(key)} is not an outcome: {error}") from error

    def put(self, run: BaseRun, outcome: Outcome) -> None:
        """Save the outcome of `run`."""
        description = run.description
        self._write(self._entry(key_of(description)), run, outcome)

    @staticmethod
    def _write(path: Path, run: BaseRun, outcome: Outcome) -> None:
        tensors, about = outcome.to_tensors(run.mask)
        write_tensors(path, tensors, about | {"run": run.description})

    def claims(self) -> KeyClaim:
        """A claim on runs by their keys. It is initially empty, and must be released. If its process dies, the
        operating system releases it, or, where locks cannot be trusted, it expires."""
        if network_file_system(self.folder):
            return HintClaim(FolderObjects(self.folder))
        return Claim(self.folder / "locks")

    @contextmanager
    def claim(self, runs: Sequence[BaseRun]) -> Iterator[None]:
        """Hold all `runs` in this block. Other processes that want to train one of them wait, and then find its
        outcome. A process that dies holds nothing."""
        keys = [run.key for run in runs]
        with hold(self.claims(), keys):
            remove_temporary(map(self._entry, keys))
            yield

    def checkpoint(self, runs: Sequence[BaseRun]) -> Checkpoint:
        """The checkpoint of `runs`, which are trained together."""
        return Checkpoint(self._checkpoint_path(runs), self.checkpoint_every)

    def _checkpoint_path(self, runs: Sequence[BaseRun]) -> Path:
        name = (
            runs[0].key if len(runs) == 1 else hashlib.sha256("".join(r.key for r in runs).encode()).hexdigest()[:32]
        )
        return self.folder / "unfinished" / f"{name}.safetensors"

    def files(self) -> Iterator[StoredFile]:
        """All files of the store except those of claims, in order of their paths."""
        return stored_files(self.folder, leave_out="locks")

    def remove(self, file: StoredFile) -> None:
        """Delete a file of the store; does nothing if it is gone."""
        remove_stored(self.folder, file)

    def about(self, key: str) -> dict[str, Any]:
        """The JSON values stored with an outcome, including its run's description as `run`; no tensor is read. Raises
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

    def _entry_name(self, key: str) -> str:
        """The name of the entry in messages."""
        return str(self._entry(key))

    def _set_aside(self, key: str, before: tuple[int, int] | None) -> str | None:
        """Move a damaged entry to where it can be inspected. Returns its new place; None if it has changed since
        `before`."""
        path = self._entry(key)
        if _stamp(path) != before:
            return None
        aside = self.folder / "damaged" / aside_name(key)
        with writing(aside):
            aside.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another process moved it
            path.replace(aside)
        return str(aside)


def aside_name(key: str) -> str:
    """A new name for a damaged entry."""
    return f"{key}.{time.time_ns()}.safetensors"


def _stamp(path: Path) -> tuple[int, int] | None:
    """A value that changes when the file is replaced; None if there is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
