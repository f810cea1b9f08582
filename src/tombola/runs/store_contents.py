"""The contents of a store: outcomes, checkpoints, damaged entries, and leftovers of killed processes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from tombola.runs.store import ID, Store
from tombola.runs.stored_file import StoredFile

OUTCOME = re.compile(r"runs/[0-9a-f]{2}/([0-9a-f]{32})\.safetensors")
CHECKPOINT = re.compile(r"unfinished/(?:[0-9a-f]{32}/)?([0-9a-f]{32})(-\d+)*\.safetensors")


@dataclass(frozen=True)
class StoreContents:
    """The files of a store, by kind."""

    outcomes: dict[str, StoredFile] = field(default_factory=dict)
    """Outcomes by the key of the run."""
    checkpoints: list[StoredFile] = field(default_factory=list)
    """Checkpoints of unfinished trainings."""
    damaged: list[StoredFile] = field(default_factory=list)
    """Entries that were set aside."""
    leftovers: list[StoredFile] = field(default_factory=list)
    """Files that are being written, or were when their process was killed."""
    others: list[StoredFile] = field(default_factory=list)
    """All other files, for example the stores of a distributed job's processes."""

    def add(self, file: StoredFile) -> None:
        if any(part.endswith(".tmp") for part in PurePosixPath(file.path).parts):
            self.leftovers.append(file)
        elif found := OUTCOME.fullmatch(file.path):
            self.outcomes[found[1]] = file
        elif CHECKPOINT.fullmatch(file.path):
            self.checkpoints.append(file)
        elif file.path.startswith("damaged/"):
            self.damaged.append(file)
        elif file.path not in (".gitignore", ID) and not file.path.startswith(("locks/", "claims/")):
            self.others.append(file)


def contents_of(store: Store) -> StoreContents:
    """The contents of a store, listed once."""
    contents = StoreContents()
    for file in store.files():
        contents.add(file)
    return contents


def checkpointed_run(file: StoredFile) -> str:
    """The key of the run that a checkpoint belongs to; for several runs trained together, a name that is not a
    key."""
    found = CHECKPOINT.fullmatch(file.path)
    assert found is not None
    return found[1]


def total_bytes(files: list[StoredFile]) -> int:
    """The total size of files."""
    return sum(file.bytes for file in files)
