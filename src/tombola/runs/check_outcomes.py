"""Checks stored outcomes by their digests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tombola.runs.run import key_of
from tombola.runs.store import Store
from tombola.utils.errors import DamagedFile
from tombola.utils.files import read_tensors

Progress = Callable[[int, int], None]
"""Called with the number of outcomes checked so far, and with their total number."""


def check_outcomes(store: Store, keys: Sequence[str], progress: Progress) -> dict[str, str]:
    """Read outcomes completely. Returns what is wrong with the damaged ones, by key."""
    damaged = {}
    for done, key in enumerate(keys, 1):
        try:
            with store.file_of(key) as file:
                check_outcome(file, key)
        except FileNotFoundError:  # it was removed since it was listed
            pass
        except DamagedFile as error:
            damaged[key] = str(error)
        progress(done, len(keys))
    return damaged


def check_outcome(file: Path, key: str) -> None:
    """Read an outcome. Raises `DamagedFile` if it has changed since it was written or belongs to another run, and
    `FileNotFoundError` if it is missing."""
    _, about = read_tensors(file)
    if "run" not in about or key_of(about["run"]) != key:
        raise DamagedFile(f"{file} is the outcome of another run")
