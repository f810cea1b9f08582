"""What claims need from a place that several machines write to: small named objects with modification times."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tombola.utils.files import writing


@dataclass(frozen=True)
class StoredObject:
    """An object in a listing."""

    name: str
    """The name within the store, with slashes."""
    modified: float
    """When it was written: seconds since the epoch, by the clock of the server that keeps it."""
    bytes: int


class Objects(Protocol):
    """Small objects, by names with slashes. All methods raise `InputError` if the place cannot be used."""

    def put(self, name: str, content: bytes) -> None:
        """Write or replace an object."""

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""

    def list(self, folder: str) -> list[StoredObject]:
        """All objects whose names begin with `folder` and a slash."""


@dataclass(frozen=True)
class FolderObjects:
    """Objects that are files in a folder, perhaps on a network file system."""

    folder: Path

    def put(self, name: str, content: bytes) -> None:
        path = self.folder / name
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            os.utime(path)  # by the clock of the server, even if the content is the same

    def delete(self, name: str) -> None:
        path = self.folder / name
        with writing(path):
            path.unlink(missing_ok=True)

    def list(self, folder: str) -> list[StoredObject]:
        return list(self._files(folder))

    def _files(self, folder: str) -> Iterator[StoredObject]:
        for place, _, names in os.walk(self.folder / folder):
            for path in (Path(place, name) for name in names):
                with suppress(OSError):  # it was deleted meanwhile
                    found = path.stat()
                    yield StoredObject(path.relative_to(self.folder).as_posix(), found.st_mtime, found.st_size)
