"""Claims: sets of keys that only one process, or thread, holds at a time. A claim of any size takes one open file.

FOLDER/guard.lock    locked while a claim is made
FOLDER/ID.lock       locked by the owner of the claim: the operating system releases the lock when the process dies
FOLDER/ID.json       the keys of the claim, in a separate file, because Windows does not allow reading a locked one:
                     each line is a JSON list of keys that were added, or removed if they begin with "-"
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import filelock

from tombola.utils.files import file_lock, writing
from tombola.utils.workers import raise_if_cancelled

WAIT = 0.1
"""Seconds until a claim is tried again."""

GUARD = "guard.lock"


class KeyClaim(Protocol):
    """Keys that one process holds at a time; initially none."""

    def try_add(self, keys: Collection[str], /) -> bool:
        """Hold `keys` too, all or none: none, and False is returned, if another claim has one of them."""

    def remove(self, keys: Collection[str], /) -> None:
        """Hold these keys no longer."""

    def release(self) -> None:
        """Hold nothing any longer."""


class Claim:
    """Keys that this process holds, initially none. Any number of keys takes one open file."""

    def __init__(self, folder: Path) -> None:
        """Claims of the same `folder` exclude each other. Raises `InputError` if it cannot be written."""
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = filelock.FileLock(folder / f"{uuid.uuid4().hex}.lock")
        self._keys: set[str] = set()
        self._written = 0  # keys in its file, including removed ones

    def try_add(self, keys: Collection[str]) -> bool:
        """Hold `keys` too, all or none: none, and False is returned, if another claim has one of them."""
        with writing(self._folder), file_lock(self._folder / GUARD):
            own = Path(self._lock.lock_file)
            if any(not others.isdisjoint(keys) for others in _claims(self._folder, own)):
                return False
            if not self._lock.is_locked:
                self._lock.acquire(timeout=0)
            self._keys |= set(keys)
            if self._written > 4 * len(self._keys):
                self._write("w", sorted(self._keys))
            else:
                self._write("a", sorted(keys))
        return True

    def remove(self, keys: Collection[str]) -> None:
        """Release these keys. A process that reads the file before the line is complete finds them still held."""
        self._keys -= set(keys)
        with writing(self._folder):
            self._write("a", [f"-{key}" for key in keys])

    def release(self) -> None:
        """Hold nothing any longer."""
        self._keys = set()
        self._lock.release()
        _remove(Path(self._lock.lock_file))

    def _write(self, mode: str, keys: Collection[str]) -> None:
        with _keys_file(Path(self._lock.lock_file)).open(mode, encoding="utf-8") as file:
            file.write(f"{json.dumps(keys)}\n")
        self._written = len(keys) + (self._written if mode == "a" else 0)


@contextmanager
def hold(claim: KeyClaim, keys: Collection[str]) -> Iterator[None]:
    """Wait until no other claim has any of `keys`, then hold them all in this block, by a `claim` that has none.

    A waiting claim holds nothing, so claims cannot deadlock. Waiting is interrupted when the worker thread is
    cancelled.
    Raises `InputError` if the claim cannot be written.
    """
    try:
        while not claim.try_add(keys):
            raise_if_cancelled()
            time.sleep(WAIT)
        yield
    finally:
        claim.release()


def _claims(folder: Path, own: Path) -> Iterator[set[str]]:
    """The keys of each claim except `own`; the files of dead processes are removed. The guard must be held."""
    for path in folder.glob("*.lock"):
        if path.name == GUARD or path == own:
            continue
        try:
            with filelock.FileLock(path).acquire(timeout=0):
                pass
        except filelock.Timeout:
            yield _keys(path)
        except PermissionError:  # a file of another user in a shared store
            continue
        else:
            _remove(path)


def _keys(lock_file: Path) -> set[str]:
    """The keys of a claim that a process holds."""
    held: set[str] = set()
    try:
        for line in _keys_file(lock_file).read_text(encoding="utf-8").splitlines():
            for key in json.loads(line):
                held.discard(key[1:]) if key.startswith("-") else held.add(key)
    except FileNotFoundError:
        return {lock_file.stem}  # an earlier version had a lock for each key; or the claim is being released
    except (OSError, ValueError):  # a line is incomplete
        return held
    return held


def _keys_file(lock_file: Path) -> Path:
    return lock_file.with_suffix(".json")


def _remove(lock_file: Path) -> None:
    """Remove the files of a claim that no process holds. The lock file is last, because the other is found by it."""
    with suppress(OSError):  # Windows does not delete a file that another process reads; the next claim deletes it
        _keys_file(lock_file).unlink(missing_ok=True)
        lock_file.unlink(missing_ok=True)
