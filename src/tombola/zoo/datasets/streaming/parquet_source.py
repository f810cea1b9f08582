"""ParquetSource: images in rows of Parquet files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from tombola.utils.workers import cores
from tombola.zoo.datasets.dataset import Array
from tombola.zoo.datasets.parquet_file import damaged_parquet, image_bytes, open_parquet
from tombola.zoo.datasets.streaming.image_source import Encoded

READING_THREADS = 2
"""Threads that read the blocks that will be needed later."""


class ParquetSource:
    """Images in rows of Parquet files. A block is a row group, the smallest part of a file that can be read alone."""

    def __init__(self, files: Sequence[Path], column: str, groups: Sequence[Sequence[int]]) -> None:
        """`groups`: the numbers of rows in the row groups of each file."""
        self.files = files
        self.column = column
        self._places = [(file, group) for file, sizes in enumerate(groups) for group in range(len(sizes))]
        sizes = np.array([size for each in groups for size in each], np.int64)
        self.blocks: Array = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        self._first_of_file = np.concatenate([[0], np.cumsum([sum(each) for each in groups])])
        self._kept = cores() + 1  # each of the threads that decode may be in another block
        self._in_memory: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()
        self._reading: dict[int, threading.Lock] = {}
        self._requested: set[int] = set()

    def __len__(self) -> int:
        return len(self.blocks)

    def read(self, rows: Sequence[int]) -> list[Encoded]:
        found = []
        for row in rows:
            block = int(self.blocks[row])
            image = self._block(block)[row - int(self._first[block])]
            file = self._places[block][0]
            place = f"{self.files[file]}, row {row - int(self._first_of_file[file]):,}"
            found.append(Encoded(place, image.as_py()))
        return found

    def prepare(self, rows: Array) -> None:
        blocks, first = np.unique(self.blocks[rows], return_index=True)
        for block in blocks[np.argsort(first)].tolist():
            with self._lock:
                known = block in self._in_memory or block in self._requested
                if not known:
                    self._requested.add(block)
            if not known:
                self._readers.submit(self._read_requested, block)

    def _read_requested(self, block: int) -> None:
        try:
            self._block(block)
        finally:
            with self._lock:
                self._requested.discard(block)

    def keep(self, images: int) -> None:
        self._kept = max(self._kept, 1 + -(-images * len(self._places) // max(1, len(self))))

    @cached_property
    def _readers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(READING_THREADS, "read images")

    def _block(self, block: int) -> pa.ChunkedArray:
        """The images of a row group, which one thread reads and the others wait for."""
        with self._lock:
            if block in self._in_memory:
                self._in_memory.move_to_end(block)
                return self._in_memory[block]
            reading = self._reading.setdefault(block, threading.Lock())
        with reading:
            with self._lock:
                if block in self._in_memory:
                    return self._in_memory[block]
            images = self._read_group(*self._places[block])
            with self._lock:
                self._in_memory[block] = images
                self._reading.pop(block, None)
                while len(self._in_memory) > self._kept:
                    self._in_memory.popitem(last=False)
            return images

    def _read_group(self, file: int, group: int) -> pa.ChunkedArray:
        path = self.files[file]
        with open_parquet(path) as opened:
            try:
                return image_bytes(opened.read_row_group(group, columns=[self.column]).column(0))
            except (pa.ArrowException, OSError) as error:
                raise damaged_parquet(path, error) from error
