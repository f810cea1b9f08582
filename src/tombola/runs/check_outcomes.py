"""Checks stored outcomes by their digests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tombola.runs.run import key_of
from tombola.runs.store import Store
from tombola.utils.errors import DamagedFile
from tombola.utils.files import read_tensors

Progress = Callable[[int, int], None]
"""Is called with the numbers of outcomes that are done, and that there are."""


def check_outcomes(store: Store, keys: Sequence[str], progress: Progress) -> dict[str, str]:
    """Read outcomes completely. Returns, by key, what is wrong with those that are damaged."""
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
    """Read an outcome. Raises `DamagedFile` if it is not what was written, or that of another run, and
    `FileNotFoundError` if it is missing."""
    _, about = read_tensors(file)
    if "run" not in about or key_of(about["run"]) != key:
        raise DamagedFile(f"{file} is the outcome of another run")
