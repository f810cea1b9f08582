"""The source files of the user's own modules, for machines that do not have them."""

from __future__ import annotations

import atexit
import functools
import io
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tombola.utils.pickling import own_modules

MAX_FILE = 2**20
"""Bytes; larger files beside the sources are data, which a module's import does not need."""


def pack_own_sources() -> bytes:
    """A zip file of the imported modules that are neither installed nor Python's own: whole packages, with small
    files that are no sources. Equal sources give equal bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in sorted(_files().items()):
            info = zipfile.ZipInfo(name)  # without the time of the file
            archive.writestr(info, file.read_bytes(), zipfile.ZIP_DEFLATED)
    return packed.getvalue()


@functools.lru_cache(maxsize=8)
def import_from(packed: bytes) -> None:
    """Make the packed modules importable in this process, after all that it has of its own."""
    folder = tempfile.mkdtemp(prefix="tombola-")  # of this process alone, which nobody else can change
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    zipfile.ZipFile(io.BytesIO(packed)).extractall(folder)
    sys.path.append(folder)


def _files() -> dict[str, Path]:
    """By the path at which they are imported."""
    found: dict[str, Path] = {}
    for module in own_modules():
        file, place = Path(module.__file__ or ""), PurePosixPath(*module.__name__.split("."))
        if file.name == "__init__.py":
            found |= {
                str(place / path.relative_to(file.parent).as_posix()): path for path in _of_package(file.parent)
            }
        elif file.suffix == ".py":
            found[f"{place}.py"] = file
    return found


def _of_package(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part == "__pycache__" or part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file() and (path.suffix == ".py" or path.stat().st_size <= MAX_FILE):
            yield path
