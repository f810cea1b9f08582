"""Where data is looked for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import platformdirs

from tombola.utils.errors import InputError


def folders(data_dir: Path | None) -> list[Path]:
    """`data_dir`, `TOMBOLA_DATA` and the user's cache, in this order; the last is where downloads go."""
    environment = os.environ.get("TOMBOLA_DATA")
    return [
        *([data_dir] if data_dir else []),
        *([Path(environment)] if environment else []),
        Path(platformdirs.user_cache_dir("tombola")),
    ]


def find_folder(name: str, data_dir: Path | None) -> Path | None:
    """The folder of that name, relative to the working folder or to one of the `folders`.

    None if there is none and `name` is a mere word. Raises `InputError` that says where it looked if it is a path.
    """
    places = [Path(name), *(folder / name for folder in folders(data_dir))]
    found = first(places, Path.is_dir) if name else None
    if found is None and re.search(r"[/\\]|\.parquet$", name):
        file = first(places, Path.is_file)
        if file is not None:
            raise InputError(f"data.name: {file} is a file; it should be the data set's folder")
        raise InputError(f"there is no data folder {' or '.join(dict.fromkeys(map(str, places)))}")
    return found


def first(places: Iterable[Path], kind: Callable[[Path], bool]) -> Path | None:
    """The first of that kind, such as `Path.is_dir`. Raises `InputError` where that cannot be known."""
    for place in places:
        try:
            if kind(place):
                return place
        except OSError as error:  # too long a name, or no permission
            raise InputError(f"data.name: {place} cannot be looked at: {error.strerror}") from error
    return None


def stamp(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """What changes when a file, or a file in a folder, is replaced or written to."""
    paths = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    stats = ((str(each), each.stat()) for each in paths)
    return tuple((name, status.st_ino, status.st_mtime_ns, status.st_size) for name, status in stats)
