"""Where the files of datasets are searched for, and downloaded to."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import platformdirs

from tombola.utils.errors import InputError
from tombola.utils.text import first_line

log = logging.getLogger(__name__)


def data_folders(data_dir: str | Path | None) -> list[Path]:
    """`data_dir`, `TOMBOLA_DATA` and the user's cache, in this order; downloads go to the last."""
    environment = os.environ.get("TOMBOLA_DATA")
    folders = [
        *([Path(data_dir)] if data_dir else []),
        *([Path(environment)] if environment else []),
        Path(platformdirs.user_cache_dir("tombola")),
    ]
    return list(dict.fromkeys(folders))


def find_file(name: str, data_dir: str | Path | None) -> Path:
    """The file of that name, relative to the working folder or to one of the `data_folders`. Raises `InputError` with
    the paths searched."""
    paths = _candidates(name, data_dir)
    path = first_existing(paths, Path.is_file)
    if path is None:
        raise InputError(f"there is no data file {' or '.join(dict.fromkeys(map(str, paths)))}")
    return path


def find_folder(name: str, data_dir: str | Path | None) -> Path | None:
    """The folder of that name, relative to the working folder or to one of the `data_folders`. None if it is missing
    and `name` is a single word. If `name` is a path, raises `InputError` with those searched."""
    paths = _candidates(name, data_dir)
    found = first_existing(paths, Path.is_dir) if name else None
    if found is None and name:
        file = first_existing(paths, Path.is_file)
        if file is not None:
            raise InputError(
                f"data.name: {file} is a file; it should be the dataset's folder, or end with .npz or .csv"
            )
    if found is None and re.search(r"[/\\]|\.parquet$", name):
        raise InputError(f"there is no data folder {' or '.join(dict.fromkeys(map(str, paths)))}")
    return found


def _candidates(name: str, data_dir: str | Path | None) -> list[Path]:
    return [Path(name), *(folder / name for folder in data_folders(data_dir))]


def first_existing(paths: Iterable[Path], is_kind: Callable[[Path], bool]) -> Path | None:
    """The first path for which `is_kind`, such as `Path.is_dir`, is true. Raises `InputError` if that fails."""
    for path in paths:
        try:
            if is_kind(path):
                return path
        except OSError as error:  # too long a name, or no permission
            raise InputError(f"data.name: {path} cannot be accessed: {error.strerror}") from error
    return None


def file_versions(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Names, inodes, times and sizes: they differ after a file, or a file in a folder, was replaced or written to."""
    paths = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return tuple(map(file_version, paths))


def file_version(path: Path) -> tuple[str, int, int, int]:
    """The name, inode, time and size of a file."""
    status = path.stat()
    return str(path), status.st_ino, status.st_mtime_ns, status.st_size


def download(
    dataset: str,
    wanted: str,
    url: str,
    folders: list[Path],
    checksum: str | None = None,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Download the file at `url` to the last of `folders`; an invalid file is not kept.

    `wanted` names the files searched for in all `folders`; `checksum` has pooch's form, `md5:...`; `check` is called
    with the file and raises `ValueError` if it is invalid.

    Raises `InputError` with the folders searched and the reason why the download failed.
    """
    import pooch

    base, name = url.rsplit("/", 1)
    log.info("downloading %s from %s", name, base)
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        path = Path(pooch.retrieve(url, checksum, fname=name, path=folders[-1]))
        if check is not None:
            try:
                check(path)
            except ValueError:
                path.unlink()
                raise
    except (OSError, ValueError) as error:
        raise InputError(
            f'dataset "{dataset}": no {wanted} in {", ".join(map(str, folders))}, and it could not be downloaded '
            f"from {base}/ ({first_line(error)}); name the folder above with --data-dir"
        ) from error
    return path
