"""Finds results folders."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from tombola.experiments.file_names import CONFIGURATION
from tombola.utils.errors import InputError

DEPTH = 3
"""How far below a folder results folders are looked for."""


def results_folders(folder: Path) -> list[Path]:
    """The results folders below `folder`, or `folder` itself, in order of their paths. `unreadable` folders are
    included, because they may be or contain results folders. Hidden folders are skipped. A folder that several links
    lead to counts once."""
    found: dict[str, Path] = {}
    top = os.path.realpath(folder)
    for each in sorted(_walk(folder, DEPTH), key=lambda path: _is_linked(path, folder, top)):
        found.setdefault(os.path.realpath(each), each)
    return sorted(found.values())


def unreadable(folder: Path) -> str | None:
    """Why the contents of `folder` cannot be listed; None if they can, or if it is not a folder."""
    try:
        os.scandir(folder).close()
        with suppress(FileNotFoundError):
            (folder / CONFIGURATION).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """The depth also ends cycles of links."""
    if unreadable(folder) is not None or (folder / CONFIGURATION).is_file():
        yield folder
    elif depth > 0:
        for name in _subfolders(folder):
            yield from _walk(folder / name, depth - 1)


def _subfolders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as found:
            return [each.name for each in found if not each.name.startswith(".") and _is_folder(each)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or leads to one, or may do so as far as can be seen."""
    try:
        return entry.is_dir()
    except OSError as error:
        return error.errno != errno.ELOOP  # a link that leads to itself leads nowhere


def _is_linked(path: Path, folder: Path, top: str) -> bool:
    """Whether `path` leads through a link below `folder`, whose own real path is `top`."""
    return os.path.realpath(path) != str(Path(top) / path.relative_to(folder))


def named_results_folders(folders: Iterable[Path]) -> list[Path]:
    """The results folders at or below each of `folders`. Raises `InputError` for a folder without any."""
    found: dict[Path, None] = {}
    for folder in folders:
        below = results_folders(folder)
        if not below:
            raise InputError(f"{folder} is not a results folder, and has none: there is no {CONFIGURATION}")
        found |= dict.fromkeys(below)
    return [*found]
