"""The nodes of a Ray cluster: how many trainings they take, and which fail at them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import ray

from tombola.integrations.cluster_resources import Resources

REFRESH = 1.0
"""Seconds for which the list of nodes is used."""

PAUSE = 60.0
"""Seconds for which a node gets no trainings after one has failed there; doubled each time in succession."""

MAX_PAUSE = 3600.0


class Nodes:
    """The nodes that are alive."""

    def __init__(self, resources: Resources) -> None:
        """`resources` are those of a training."""
        self._resources = resources
        self._lock = threading.Lock()
        self._looked = -REFRESH
        self._alive: list[Mapping[str, Any]] = []
        self._addresses: dict[str, str] = {}
        self._failures: dict[str, int] = {}  # in succession
        self._paused: dict[str, float] = {}

    def alive(self) -> Mapping[str, int]:
        """How many trainings each takes at once, by its id; only of those that take any."""
        with self._lock:
            if time.monotonic() - self._looked > REFRESH:
                nodes = ray.nodes()
                self._addresses |= {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}
                self._alive = [node for node in nodes if node["Alive"]]
                self._looked = time.monotonic()
            totals = {node["NodeID"]: node["Resources"] for node in self._alive}
        slots = {
            node: self._resources.slots(total.get("CPU", 0.0), total.get("GPU", 0.0))
            for node, total in totals.items()
        }
        return {node: count for node, count in slots.items() if count}

    def failed(self, node: str) -> None:
        """A training failed there."""
        count = self._failures[node] = self._failures.get(node, 0) + 1
        self._paused[node] = time.monotonic() + min(PAUSE * 2 ** (count - 1), MAX_PAUSE)

    def succeeded(self, node: str) -> None:
        """A training ended there."""
        self._failures.pop(node, None)
        self._paused.pop(node, None)

    def avoided(self) -> set[str]:
        """Nodes that should get no trainings now, because some failed there; none if that leaves no node. A full disk
        fails trainings within a second, and would otherwise get one after another."""
        now, alive = time.monotonic(), self.alive()
        paused = {node for node, until in self._paused.copy().items() if until > now and node in alive}
        return paused if paused < alive.keys() else set()

    def name(self, node: str | None) -> str:
        """For messages: its address, and the beginning of its id, because several may have one address."""
        return f"node {node[:8]} ({self._addresses.get(node, 'of unknown address')})" if node else "a node"
