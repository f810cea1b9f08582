"""Which Parquet files in a dataset's folder hold the training and the test examples."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tombola.utils.errors import InputError

TRAIN = ("train",)
TEST = ("test", "validation", "valid", "val")
"""In this order of preference: only the first one found is used."""

PREFERRED_FOLDERS = ("", "data", "plain_text", "default")
"""Searched, in this order, before any other sub-folder."""

MAX_DEPTH = 3
"""As in `configuration/train/0000.parquet`."""

FILE_NAME = re.compile(rf"({'|'.join(TRAIN + TEST)})(?:(-).*)?\.parquet$")
SERIES = re.compile(r"-(\d+)-of-(\d+)")


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a dataset, relative to its folder, in the order of their examples."""

    train: tuple[PurePosixPath, ...]
    test: tuple[PurePosixPath, ...]


def list_files(folder: Path) -> list[PurePosixPath]:
    """The Parquet files in a folder that could belong to a dataset, relative to the folder."""
    found = (path for depth in range(MAX_DEPTH) for path in folder.glob("*/" * depth + "*.parquet"))
    return sorted(PurePosixPath(path.relative_to(folder).as_posix()) for path in found if path.is_file())


def choose_files(
    where: str,
    files: Iterable[PurePosixPath],
    configuration: str | None = None,
    tests: tuple[str, ...] = TEST,
) -> DatasetFiles:
    """The training and test files among `files`; messages call their folder `where`.

    Training files are named `train-*.parquet` or `train/*.parquet`, test files likewise `test`, or else `validation`,
    `valid` or `val`. They are searched for in the folder itself, in `data`, `plain_text` and `default`, and then in
    all other sub-folders, of which only one may have them; or only in the sub-folder `configuration`. `tests`: the
    names of test files, in their order of preference.

    Raises `InputError` if there are none, if several sub-folders have some, if a file of a numbered series is
    missing, or if files are named in two ways, since they may hold the same examples twice.
    """
    paths = sorted(files)
    candidates = train_folders(paths)
    if configuration is not None:
        candidates = [folder for folder in candidates if folder == configuration]
    else:
        candidates = [folder for folder in PREFERRED_FOLDERS if folder in candidates][:1] or candidates
    if not candidates:
        inside = f"{configuration} in " if configuration is not None else ""
        raise InputError(f"there is no train-*.parquet and test-*.parquet in {inside}{where}")
    if len(candidates) > 1:
        raise InputError(
            f"{where}: several sub-folders have train-*.parquet ({', '.join(candidates)}); set data.name to one, as "
            f"in {where}/{candidates[0]}"
        )
    folder = candidates[0]
    train = _part(where, paths, folder, TRAIN)
    test = _part(where, paths, folder, tests)
    if not test:
        raise InputError(
            f"{where}: there is {train[0]}, but no test-*.parquet, validation-*.parquet, valid-*.parquet or "
            "val-*.parquet beside it for the test set"
        )
    return DatasetFiles(train, test)


def train_folders(files: Iterable[PurePosixPath]) -> list[str]:
    """The sub-folders of `files` with training examples; "" is the folder itself."""
    parts = (_part_of(path) for path in sorted(files))
    return list(dict.fromkeys(folder for folder, part in filter(None, parts) if part in TRAIN))


def _part_of(path: PurePosixPath) -> tuple[str, str] | None:
    """The sub-folder of a file, at most one level deep, and its part: `train`, `test` or another; None if invalid."""
    parts = list(path.parts)
    if path.suffix != ".parquet" or len(parts) > MAX_DEPTH:
        return None
    if len(parts) > 1 and parts[-2] in TRAIN + TEST:  # with any file name
        return "/".join(parts[:-2]), parts[-2]
    named = FILE_NAME.match(parts[-1])
    return ("/".join(parts[:-1]), named[1]) if named and len(parts) < MAX_DEPTH else None


def _part(where: str, paths: list[PurePosixPath], folder: str, names: tuple[str, ...]) -> tuple[PurePosixPath, ...]:
    for name in names:
        files = tuple(path for path in paths if _part_of(path) == (folder, name))
        if files:
            _check_same_form(where, files)
            _check_complete(where, files)
            return files
    return ()


def _check_same_form(where: str, files: tuple[PurePosixPath, ...]) -> None:
    """`train-00000-of-00001.parquet` and `train/0000.parquet` probably hold the same examples."""
    for path in files[1:]:
        if _form(path) != _form(files[0]):
            raise InputError(
                f"{where}: {files[0]} and {path} are named in two ways and may hold the same examples twice; keep one"
            )


def _form(path: PurePosixPath) -> tuple[object, ...]:
    """Equal for files that may be shards of one part."""
    named = FILE_NAME.match(path.name)
    return path.parent, named and named.groups(), bool(SERIES.search(path.name))


def _check_complete(where: str, files: tuple[PurePosixPath, ...]) -> None:
    """`train-00000-of-00002.parquet` needs `train-00001-of-00002.parquet`."""
    numbered = [match for match in (SERIES.search(path.name) for path in files) if match]
    numbers = {int(match[1]) for match in numbered}
    totals = {int(match[2]) for match in numbered}
    if len(totals) > 1 or len(numbers) < len(numbered):
        raise InputError(f"{where}: {files[0]} and {files[-1]} belong to different series")
    missing = sorted(set(range(*totals)) - numbers) if totals else []
    if missing:
        raise InputError(f"{where}: {files[0]} belongs to a series whose number {missing[0]} is missing")
