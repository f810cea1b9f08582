"""A mark in a results folder, which shows other processes that its experiment is being run."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import filelock

from tombola.experiments.file_names import STATUS
from tombola.utils.processes import on_this_machine, process_name

MARK = ".running"
"""A lock file in the results folder, with the name of the process. The operating system releases the lock when the
process dies."""

SILENT = 3600.0
"""Seconds without a change in the folder after which a process on another machine is taken to have ended, if its lock
is not seen here: not every network file system shares locks."""


class LiveMark:
    """Marks a results folder until `remove`, or until the process ends. It excludes no other process: if the folder
    is marked already, or cannot be locked, nothing is done."""

    def __init__(self, folder: Path) -> None:
        self._lock = filelock.FileLock(folder / MARK)
        with suppress(OSError, filelock.Timeout):
            self._lock.acquire(timeout=0.2)
            (folder / MARK).write_text(process_name(), encoding="ascii")

    def remove(self) -> None:
        if self._lock.is_locked:
            with suppress(OSError):
                Path(self._lock.lock_file).unlink()
            self._lock.release()


def is_marked(folder: Path) -> bool:
    """Whether a process runs the experiment in `folder`, as far as this process can see. Nothing is written there, so
    the folder may belong to another user."""
    mark = folder / MARK
    try:
        if _is_locked(mark):
            return True
        elsewhere = not on_this_machine(mark.read_text(encoding="ascii"))
        return elsewhere and time.time() - _last_change(folder) < SILENT
    except (OSError, UnicodeDecodeError):
        return False


def _last_change(folder: Path) -> float:
    """When the mark or the status was written, in seconds since the epoch."""
    return max(path.stat().st_mtime for path in (folder / MARK, folder / STATUS) if path.exists())


if os.name == "posix":
    import fcntl

    def _is_locked(path: Path) -> bool:
        """Whether a process has locked the file, which is only read. Raises `OSError` if that cannot be seen."""
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

else:

    def _is_locked(path: Path) -> bool:
        """Whether a process has locked the file. Raises `OSError` if that cannot be seen."""
        if not path.exists():
            return False
        try:
            with filelock.FileLock(path).acquire(timeout=0):
                return False
        except filelock.Timeout:
            return True
