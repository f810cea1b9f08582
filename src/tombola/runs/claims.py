"""Claims: sets of keys that one process, or thread, holds at a time. A claim takes one open file, whatever its size.

FOLDER/guard.lock    held while a claim is made
FOLDER/ID.lock       held by whoever has this claim: the operating system releases it when the process dies
FOLDER/ID.json       the keys of the claim, in a file of their own, because Windows lets nobody read a locked one
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from tombola.utils.files import file_lock, writing

WAIT = 0.1
"""Seconds until a claim is tried again."""

GUARD = "guard.lock"


@contextmanager
def claim(folder: Path, keys: Collection[str]) -> Iterator[None]:
    """Hold all `keys` in this block, after waiting until no other claim in `folder` has any of them.

    Who waits holds nothing, so claims cannot deadlock. Waiting is interrupted when the worker thread is cancelled.
    Raises `InputError` if the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / f"{uuid.uuid4().hex}.lock")
    try:
        while not _made(folder, lock, keys):
            time.sleep(WAIT)
        yield
    finally:
        lock.release()
        _remove(Path(lock.lock_file))


def _made(folder: Path, lock: filelock.BaseFileLock, keys: Collection[str]) -> bool:
    """Make a claim, unless another has one of its keys."""
    with writing(folder), file_lock(folder / GUARD):
        wanted = set(keys)
        if any(not wanted.isdisjoint(others) for others in _claims(folder)):
            return False
        lock.acquire(timeout=0)
        _keys_file(Path(lock.lock_file)).write_text(json.dumps(sorted(wanted)), encoding="utf-8")
    return True


def _claims(folder: Path) -> Iterator[list[str]]:
    """The keys of each claim; the files of dead processes are removed. The guard must be held."""
    for path in folder.glob("*.lock"):
        if path.name == GUARD:
            continue
        try:
            with filelock.FileLock(path).acquire(timeout=0):
                pass
        except filelock.Timeout:
            yield _keys(path)
        except PermissionError:  # someone else's in a shared store
            continue
        else:
            _remove(path)


def _keys(lock_file: Path) -> list[str]:
    """The keys of a claim that someone holds."""
    try:
        keys: list[str] = json.loads(_keys_file(lock_file).read_text(encoding="utf-8"))
        return keys
    except FileNotFoundError:
        return [lock_file.stem]  # of an earlier version, which had a lock for each key; or it is being released
    except (OSError, ValueError):  # it could not be written
        return []


def _keys_file(lock_file: Path) -> Path:
    return lock_file.with_suffix(".json")


def _remove(lock_file: Path) -> None:
    """Remove the files of a claim that nobody holds; last the one by which the other is found."""
    with suppress(OSError):  # Windows does not delete a file that another process looks at; whoever claims next does
        _keys_file(lock_file).unlink(missing_ok=True)
        lock_file.unlink(missing_ok=True)
