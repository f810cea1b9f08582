"""FileSource: images in files of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tombola.zoo.datasets.class_folders import read_file
from tombola.zoo.datasets.dataset import Array
from tombola.zoo.datasets.streaming.image_source import Encoded


@dataclass(frozen=True, eq=False)
class FileSource:
    """Images in files of their own."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def blocks(self) -> None:
        return None

    def read(self, rows: Sequence[int]) -> list[Encoded]:
        return [Encoded(str(self.paths[row]), read_file(self.paths[row])) for row in rows]

    def prepare(self, rows: Array) -> None:
        """Nothing: a file is read when its image is decoded."""

    def keep(self, images: int) -> None:
        """Nothing: the operating system caches files."""
