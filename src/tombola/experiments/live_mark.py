"""A mark in a results folder, by which others see that a process is at work on its experiment."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import filelock

MARK = ".running"
"""A lock file in the results folder. The operating system releases the lock when the process dies."""


class LiveMark:
    """Marks a results folder until `remove`, or until the process ends. It excludes nobody: where others have marked
    the folder, or it cannot be locked, nothing is done."""

    def __init__(self, folder: Path) -> None:
        self._lock = filelock.FileLock(folder / MARK)
        with suppress(OSError, filelock.Timeout):
            self._lock.acquire(timeout=0.2)

    def remove(self) -> None:
        if self._lock.is_locked:
            with suppress(OSError):
                Path(self._lock.lock_file).unlink()
            self._lock.release()


def is_marked(folder: Path) -> bool:
    """Whether a process on this machine is at work on the experiment in `folder`, as far as can be seen from here."""
    if not (folder / MARK).exists():
        return False
    try:
        with filelock.FileLock(folder / MARK).acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True
    except OSError:  # of someone else
        return False
