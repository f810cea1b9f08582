"""The files of a store in a folder, to be listed and deleted."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tombola.utils.files import writing


@dataclass(frozen=True)
class StoredFile:
    """A file of a store, or a temporary folder of `atomic_write` there."""

    path: str
    """Relative to the store, with slashes."""
    bytes: int
    modified: float
    """The time of modification in seconds since the epoch; for a folder, the latest one of its contents."""


def stored_files(root: Path, leave_out: str) -> Iterator[StoredFile]:
    """All files below `root`, in order of their paths, except those in the folder `leave_out`."""
    for folder, folders, names in os.walk(root):
        temporary = [name for name in folders if name.endswith(".tmp")]
        folders[:] = sorted({*folders} - {*temporary, leave_out})
        for name in sorted([*names, *temporary]):
            with suppress(FileNotFoundError):  # it has been renamed or deleted since
                yield _stored_file(Path(folder) / name, root)


def _stored_file(path: Path, root: Path) -> StoredFile:
    found = [each.stat() for each in (path, *(path.rglob("*") if path.is_dir() else ()))]
    size = sum(each.st_size for each in found if stat.S_ISREG(each.st_mode))
    return StoredFile(path.relative_to(root).as_posix(), size, max(each.st_mtime for each in found))


def remove_stored(root: Path, file: StoredFile) -> None:
    """Delete a file or a temporary folder; does nothing if it is gone. Raises `InputError` if this fails."""
    path = root / file.path
    with writing(path):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
