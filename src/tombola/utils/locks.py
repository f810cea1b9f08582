"""Lock files, which the operating system drops when their process dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from tombola.utils.workers import raise_if_cancelled


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path`. While it waits for it, a worker thread can be told to give up."""
    lock = filelock.FileLock(path)
    while True:
        raise_if_cancelled()
        try:
            lock.acquire(timeout=0.5)
            break
        except filelock.Timeout:
            continue
    try:
        yield
    finally:
        lock.release()
