"""Finds results folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tombola.experiments.results import CONFIGURATION
from tombola.utils.errors import InputError

DEPTH = 3
"""How far below a folder results folders are looked for."""


def results_folders(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """The results folders below `folder`, or that itself, in order of their paths. Hidden folders and links to
    folders are not looked into; folders that cannot be read have none."""
    if (folder / CONFIGURATION).is_file():
        yield folder
    elif depth > 0:
        try:
            with os.scandir(folder) as found:
                folders = [each.name for each in found if each.is_dir(follow_symlinks=False)]
        except OSError:
            return
        for name in sorted(name for name in folders if not name.startswith(".")):
            yield from results_folders(folder / name, depth - 1)


def named_results_folders(folders: Iterable[Path]) -> list[Path]:
    """The results folders at or below each of `folders`. Raises `InputError` for one that has none."""
    found: dict[Path, None] = {}
    for folder in folders:
        below = [*results_folders(folder)]
        if not below:
            raise InputError(f"{folder} is not a results folder, and has none: there is no {CONFIGURATION}")
        found |= dict.fromkeys(below)
    return [*found]
