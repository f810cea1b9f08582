"""Stores with outcomes, made without a training."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from tests.support.outcomes import outcome_of
from tombola.runs.run import Run
from tombola.runs.store import Store


def filled(folder: Path, runs: Iterable[Run]) -> Store:
    """A store with outcomes of these runs."""
    store = Store(folder)
    for run in runs:
        store.put(run, outcome_of(run))
    return store


def entry(store: Store, key: str) -> Path:
    """The file of an outcome."""
    return store.folder / "runs" / key[:2] / f"{key}.safetensors"


def keys_of(store: Store) -> set[str]:
    """The keys of all outcomes."""
    return {path.stem for path in (store.folder / "runs").glob("??/*.safetensors")}


def make_older(path: Path, days: float) -> None:
    """Let a file, or a folder and all in it, be so many days old."""
    for each in [*path.rglob("*"), path]:
        os.utime(each, (time.time() - 86400 * days,) * 2)


def damage(path: Path) -> None:
    """Change a byte of the last tensor."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
