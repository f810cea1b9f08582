"""Folders: the user's cache, the store of runs, the files of built-in datasets."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from tombola.report.diagnosis.finding import Finding
from tombola.utils.text import byte_size, plural

COUNTED = 20_000
"""Files of a folder whose sizes are added up."""
LITTLE_DISK = 1e9
"""Bytes."""
DEFAULT_STORE = "results/.tombola"


def cache() -> Iterator[Finding]:
    """The user's cache: compiled kernels, measured speeds, downloaded and decoded datasets."""
    folder = Path(platformdirs.user_cache_dir("tombola"))
    yield _writable("cache", folder, "each process compiles its kernels again; set XDG_CACHE_HOME to another folder")
    for part in sorted(folder.iterdir()) if folder.is_dir() else ():
        if part.is_dir():
            size, files = _size(part)
            yield Finding("folders", f"cache: {part.name}", f"{byte_size(size)} in {plural(files, 'file')}")
    speeds = Path(os.environ.get("TOMBOLA_SPEEDS") or folder / "speeds.json")
    text = byte_size(speeds.stat().st_size) if speeds.is_file() else "not measured yet"
    yield Finding("folders", "measured speeds", f"{speeds}: {text}")


def store(place: str | None) -> Iterator[Finding]:
    """The store of runs: `place`, `TOMBOLA_STORE` or the default."""
    chosen = place or os.environ.get("TOMBOLA_STORE") or DEFAULT_STORE
    if "://" in chosen and not chosen.startswith("file://"):
        url = urlsplit(chosen)
        shown = f"{url.scheme}://{url.hostname or ''}{url.path}"  # without names, passwords and options
        yield Finding("folders", "store", f"{shown}; buckets are not contacted")
        return
    folder = Path(chosen.removeprefix("file://"))
    found = _writable("store", folder, "name another folder with --store or TOMBOLA_STORE")
    if found.state == "ok" and (folder / "runs").is_dir():
        _, files = _size(folder / "runs")
        found = Finding("folders", "store", f"{found.text}, {plural(files, 'outcome')}")
    yield found


def data(data_dir: str | Path | None) -> Iterator[Finding]:
    """Where each built-in dataset is, or was looked for."""
    from tombola.zoo.datasets.registry import DOWNLOADED, LOCATIONS
    from tombola.zoo.datasets.search_paths import data_folders

    folders = data_folders(data_dir)
    for given in folders[:-1]:
        if not given.is_dir():
            yield Finding(
                "data", "folder", f"{given} is not a folder", "warning", "correct TOMBOLA_DATA or --data-dir"
            )
    searched = ", ".join(map(str, folders))
    for name, locate in LOCATIONS.items():
        found = locate(data_dir)
        missing = f"not in {searched}" + ("; downloaded when it is used" if name in DOWNLOADED else "")
        yield Finding("data", name, missing if found is None else str(found))


def _writable(name: str, folder: Path, advice: str) -> Finding:
    """Whether files can be written to `folder`, or to where it would be made, and how much space is left."""
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding("folders", name, f"{folder} cannot be written: {error.strerror}", "warning", advice)
    free = shutil.disk_usage(existing).free
    text = f"{folder}{'' if folder.exists() else ' (not made yet)'}, writable, {byte_size(free)} free"
    if free < LITTLE_DISK:
        return Finding("folders", name, text, "warning", "free some disk space")
    return Finding("folders", name, text)


def _size(folder: Path) -> tuple[int, int]:
    """The bytes and the number of the first `COUNTED` files below `folder`."""
    files = islice((path for path in folder.rglob("*") if path.is_file()), COUNTED)
    sizes = [path.lstat().st_size for path in files]
    return sum(sizes), len(sizes)
