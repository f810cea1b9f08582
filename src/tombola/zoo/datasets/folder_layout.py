"""Where the Parquet files of a data set's training and test examples are in its folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tombola.utils.errors import InputError

TRAIN = ("train",)
TEST = ("test", "validation", "valid", "val")
"""The first that there is; the files of the others are not used."""

FIRST = ("", "data", "plain_text", "default")
"""Where files are looked for before any other sub-folder."""

DEPTH = 3
"""`configuration/train/0000.parquet` is the deepest."""

NAMED = re.compile(rf"({'|'.join(TRAIN + TEST)})(?:(-).*)?\.parquet$")
SERIES = re.compile(r"-(\d+)-of-(\d+)")


@dataclass(frozen=True)
class FolderLayout:
    """The files of a data set, relative to its folder, each part's in the order of its examples."""

    train: tuple[PurePosixPath, ...]
    test: tuple[PurePosixPath, ...]


def files_in(folder: Path) -> list[PurePosixPath]:
    """The Parquet files in a folder that could belong to a data set, relative to it."""
    found = (path for depth in range(DEPTH) for path in folder.glob("*/" * depth + "*.parquet"))
    return sorted(PurePosixPath(path.relative_to(folder).as_posix()) for path in found if path.is_file())


def choose_files(where: str, files: Iterable[PurePosixPath], configuration: str | None = None) -> FolderLayout:
    """The training and test files among `files`, for which `where` stands in messages.

    A part's files are called `train-*.parquet` or lie in a folder of that name, `train/*.parquet`; likewise those
    of the test examples, for which `validation`, `valid` and `val` stand in. They are looked for in the folder
    itself, in `data`, `plain_text` and `default`, and then in all other sub-folders, of which just one may have
    them: or in the sub-folder `configuration` alone.

    Raises `InputError` when there are none, several sub-folders have some, a file of a numbered series is missing, or
    a part has files of several forms, which may hold the same examples twice.
    """
    paths = sorted(files)
    candidates = homes(paths)
    if configuration is not None:
        candidates = [home for home in candidates if home == configuration]
    else:
        candidates = [home for home in FIRST if home in candidates][:1] or candidates
    if not candidates:
        inside = f"{configuration} in " if configuration is not None else ""
        raise InputError(f"there is no train-*.parquet and test-*.parquet in {inside}{where}")
    if len(candidates) > 1:
        raise InputError(
            f"{where}: several sub-folders have train-*.parquet ({', '.join(candidates)}); set data.name to one, as "
            f"in {where}/{candidates[0]}"
        )
    home = candidates[0]
    train = _part(where, paths, home, TRAIN)
    test = _part(where, paths, home, TEST)
    if not test:
        raise InputError(
            f"{where}: there is {train[0]}, and no test-*.parquet, validation-*.parquet, valid-*.parquet or "
            "val-*.parquet beside it to test on"
        )
    return FolderLayout(train, test)


def homes(files: Iterable[PurePosixPath]) -> list[str]:
    """The sub-folders with training examples among `files`; "" for the folder itself."""
    parts = (_part_of(path) for path in sorted(files))
    return list(dict.fromkeys(home for home, part in filter(None, parts) if part in TRAIN))


def _part_of(path: PurePosixPath) -> tuple[str, str] | None:
    """In which sub-folder a file is, at most one deep, and of which part it is."""
    parts = list(path.parts)
    if path.suffix != ".parquet" or len(parts) > DEPTH:
        return None
    if len(parts) > 1 and parts[-2] in TRAIN + TEST:  # whatever the file is called
        return "/".join(parts[:-2]), parts[-2]
    named = NAMED.match(parts[-1])
    return ("/".join(parts[:-1]), named[1]) if named and len(parts) < DEPTH else None


def _part(where: str, paths: list[PurePosixPath], home: str, names: tuple[str, ...]) -> tuple[PurePosixPath, ...]:
    for name in names:
        files = tuple(path for path in paths if _part_of(path) == (home, name))
        if files:
            _check_alike(where, files)
            _check_whole(where, files)
            return files
    return ()


def _check_alike(where: str, files: tuple[PurePosixPath, ...]) -> None:
    """`train-00000-of-00001.parquet` and `train/0000.parquet` most likely hold the same examples."""
    for path in files[1:]:
        if _form(path) != _form(files[0]):
            raise InputError(
                f"{where}: {files[0]} and {path} are files of two forms, perhaps the same examples twice; keep one"
            )


def _form(path: PurePosixPath) -> tuple[object, ...]:
    """The same for files that may be pieces of one part."""
    named = NAMED.match(path.name)
    return path.parent, named and named.groups(), bool(SERIES.search(path.name))


def _check_whole(where: str, files: tuple[PurePosixPath, ...]) -> None:
    """`train-00000-of-00002.parquet` says that there is another."""
    numbered = [match for match in (SERIES.search(path.name) for path in files) if match]
    numbers = {int(match[1]) for match in numbered}
    totals = {int(match[2]) for match in numbered}
    if len(totals) > 1 or len(numbers) < len(numbered):
        raise InputError(f"{where}: {files[0]} and {files[-1]} belong to different series of files")
    missing = sorted(set(range(*totals)) - numbers) if totals else []
    if missing:
        raise InputError(f"{where}: {files[0]} is one of a series, of which number {missing[0]} is missing")
