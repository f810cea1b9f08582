"""RunQueue: the runs that wait for an engine, in the order in which they will be trained."""

from __future__ import annotations

import heapq
import itertools
from typing import NamedTuple

from tombola.runs.run import BaseRun


class QueuedRun(NamedTuple):
    """A run in the queue, compared by its place. Hashing the description of a run takes time, so its key is kept."""

    requests: int
    """The length of the list of requests that it belongs to."""
    arrival: int
    key: str
    run: BaseRun

    @property
    def place(self) -> tuple[int, int]:
        """Runs of the shortest lists of requests come first, then in order of arrival."""
        return self.requests, self.arrival


class RunQueue:
    """Queued runs by shape. Adding a run and taking one take logarithmic time, for any number of shapes."""

    def __init__(self) -> None:
        self._arrivals = itertools.count()
        self._by_shape: dict[tuple[object, ...], list[QueuedRun]] = {}  # heaps
        # A heap over all shapes: the place of each run, and the heap of its shape. The first run is always queued;
        # entries behind it may belong to runs that were already taken.
        self._places: list[tuple[tuple[int, int], list[QueuedRun]]] = []

    def __bool__(self) -> bool:
        return bool(self._places)

    def add(self, run: BaseRun, key: str, requests: int) -> None:
        """Add a run with this key, which belongs to a list of `requests` requests."""
        alike = self._by_shape.setdefault(run.shape, [])
        queued = QueuedRun(requests, next(self._arrivals), key, run)
        heapq.heappush(alike, queued)
        heapq.heappush(self._places, (queued.place, alike))

    @property
    def first(self) -> BaseRun:
        """The run that is trained next."""
        return self._places[0][1][0].run

    @property
    def alike(self) -> int:
        """How many runs have the shape of the first, itself included."""
        return len(self._places[0][1])

    def take(self, count: int) -> list[QueuedRun]:
        """Remove the first run and the next ones of its shape: `count` runs, at most `alike`."""
        _, alike = self._places[0]
        taken = [heapq.heappop(alike) for _ in range(count)]
        while self._places and not _is_queued(*self._places[0]):
            heapq.heappop(self._places)
        return taken


def _is_queued(place: tuple[int, int], alike: list[QueuedRun]) -> bool:
    """Whether the run at this place, the first of all, has not been taken yet."""
    return bool(alike) and alike[0].place == place
