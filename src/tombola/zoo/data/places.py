"""Where data is looked for."""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs

from tombola.errors import InputError


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
    found = next((place for place in places if place.is_dir()), None) if name else None
    if found is None and re.search(r"[/\\]", name):
        raise InputError(f"there is no data folder {' or '.join(dict.fromkeys(map(str, places)))}")
    return found


def stamp(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """What changes when a file, or a file in a folder, is replaced or written to."""
    paths = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    stats = ((str(each), each.stat()) for each in paths)
    return tuple((name, status.st_ino, status.st_mtime_ns, status.st_size) for name, status in stats)
