"""A Ray cluster of several nodes on this machine."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

NODES = 3
MEMORY = 80 * 2**20
"""Bytes of a node's object store."""

HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 200,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 8,
}
"""A node that does not answer for some six seconds is dead; busy machines pause for one or two."""


class RayNodes:
    """A head without CPUs, to which drivers connect, and nodes with a CPU each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
        self.cluster = Cluster(initialize_head=True, head_node_args=head | {"object_store_memory": MEMORY})
        self.nodes: list[Any] = []
        self.complete()

    @property
    def address(self) -> str:
        address: str = self.cluster.address
        return address

    def complete(self) -> None:
        """Replace the nodes that were killed."""
        while len(self.nodes) < NODES:
            self.nodes.append(self.cluster.add_node(num_cpus=1, object_store_memory=MEMORY))
        self.cluster.wait_for_nodes()

    def kill(self, node_id: str | None = None) -> None:
        """Kill a node, with its workers and its object store: that with this id, or the oldest."""
        node = next(node for node in self.nodes if node_id in (None, node.node_id))
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    @contextmanager
    def hanging(self, node_id: str) -> Iterator[None]:
        """In this block a node and its workers do not answer. It is dead afterwards."""
        (raylet,) = (node.all_processes["raylet"][0].process for node in self.nodes if node.node_id == node_id)
        processes = [raylet.pid, *children(raylet.pid)]
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            self.kill(node_id)
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)

    def training(self) -> list[int]:
        """The worker processes that are performing calls."""
        raylets = [node.all_processes["raylet"][0].process.pid for node in self.nodes]
        workers = [worker for raylet in raylets for worker in children(raylet)]
        return [worker for worker in workers if b"ray::answer" in Path(f"/proc/{worker}/cmdline").read_bytes()]

    def shutdown(self) -> None:
        self.cluster.shutdown()


@contextmanager
def client_server(address: str) -> Iterator[str]:
    """A Ray Client server of the cluster; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ray.util.client.server", "--mode", "specific-server"]
    process = subprocess.Popen(
        [*command, "--address", address, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _answers(port))
        yield f"ray://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def children(process: int) -> list[int]:
    """The processes that it started."""
    listed = [path.read_text() for path in Path(f"/proc/{process}/task").glob("*/children")]
    return [int(child) for child in " ".join(listed).split()]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait until it holds, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


@pytest.fixture(scope="session")
def _cluster() -> Iterator[RayNodes]:
    nodes = RayNodes()
    try:
        yield nodes
    finally:
        _ray().shutdown()
        nodes.shutdown()


@pytest.fixture
def ray_nodes(_cluster: RayNodes, monkeypatch: pytest.MonkeyPatch) -> RayNodes:
    """The cluster, complete, and that which `auto` means; it is started once."""
    monkeypatch.setenv("RAY_ADDRESS", _cluster.address)
    _cluster.complete()
    return _cluster


@pytest.fixture
def connected(ray_nodes: RayNodes) -> RayNodes:
    """The cluster, to which this process stays connected for the next test, which finds its workers there."""
    if not _ray().is_initialized():
        _ray().init(ray_nodes.address, log_to_driver=False, logging_level="critical")
    return ray_nodes


@pytest.fixture
def disconnected() -> None:
    _ray().shutdown()


def _ray() -> Any:
    """Imported by the tests that need it only."""
    return importlib.import_module("ray")


def end_process() -> None:
    """What the out-of-memory killer does to a worker."""
    os.kill(os.getpid(), signal.SIGKILL)


def place() -> str:
    """The node of this worker."""
    node: str = _ray().get_runtime_context().get_node_id()
    return node


def write_place(folder: Path, seconds: float = 60.0) -> str:
    """Write the node and the process of a call that takes long into `folder`."""
    (folder / f"{place()} {os.getpid()}").touch()
    time.sleep(seconds)
    return place()


def places(folder: Path, count: int) -> list[tuple[str, int]]:
    """Where so many calls of `write_place` are, once they are."""
    found = wait_until(lambda: len(paths := list(folder.iterdir())) >= count and paths)
    return [(path.name.split()[0], int(path.name.split()[1])) for path in found]


def wait_for_end(process: int) -> None:
    wait_until(lambda: not Path(f"/proc/{process}").exists())
