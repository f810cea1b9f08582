"""Which Ray cluster is meant, and what is said if there is none."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.errors import raises_input_error
from tests.support.ray_nodes import (
    NODES,
    RayNodes,
    client_server,
    end_process,
    place,
    places,
    wait_for_end,
    write_place,
)
from tombola.integrations.cluster_resources import Resources
from tombola.integrations.ray_cluster import ray_cluster

ray = pytest.importorskip("ray", reason="Ray is not installed")
from tombola.integrations.ray_errors import WorkerLost  # noqa: E402

pytestmark = pytest.mark.usefixtures("disconnected")


def total(shared: Any) -> float:
    return float(shared().sum())


def raise_os_error() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "weights")


def test_by_a_client(ray_nodes: RayNodes, tmp_path: Path) -> None:
    with client_server(ray_nodes.address) as address, ray_cluster(address, {"cpu": 0.5}) as executor:
        assert (executor.nodes(), executor.slots(), executor.device) == (NODES, 2 * NODES, "cpu")
        assert executor.submit(total, executor.share(np.ones(5))).result() == 5.0
        assert type(executor.submit(raise_os_error).exception()) is OSError
        with pytest.raises(WorkerLost, match="killed"):
            executor.submit(end_process).result()
        future = executor.submit(write_place, tmp_path)
        ((_, process),) = places(tmp_path, 1)
        assert future.cancel()
        wait_for_end(process)
        assert executor.submit(place).result()
    assert not ray.is_initialized()


def test_the_cluster_of_this_machine(ray_nodes: RayNodes) -> None:
    with ray_cluster("auto") as executor:
        assert executor.nodes() == NODES
        with ray_cluster("auto"):
            assert ray.is_initialized()
        assert ray.is_initialized()  # it was not connected by the inner block
    assert not ray.is_initialized()
    assert ray_nodes.cluster.head_node.any_processes_alive()


STARTED_HERE = """
import os
from tombola.integrations.ray_cluster import ray_cluster
from tombola.utils.errors import InputError
with ray_cluster("ray") as executor:
    import ray
    started = [each.process.pid for kind in ray._private.worker._global_node.all_processes.values() for each in kind]
    assert executor.nodes() == 1 and executor.slots() == len(os.sched_getaffinity(0))
    assert executor.submit(os.getpid).result() not in (os.getpid(), *started)
assert not ray.is_initialized()
try:
    with ray_cluster("ray", {"cpu": 10_000}):
        pass
except InputError as error:
    print("error", error)
print(*started)
"""


def test_a_cluster_that_is_started_here_ends_with_its_block() -> None:
    """In a process of its own: one that was connected to another cluster cannot return to that."""
    printed = subprocess.run([sys.executable, "-c", STARTED_HERE], check=True, capture_output=True, text=True)
    error, started = printed.stdout.splitlines()
    assert "cpu=10000" in error
    assert len(started.split()) > 1
    for process in started.split():
        wait_for_end(int(process))
    assert printed.stderr == ""


MEMORY_MONITOR = """
import os, time
from tombola.integrations.ray_cluster import ray_cluster, silence_ray
silence_ray()
from ray.cluster_utils import Cluster
settings = {"memory_usage_threshold": 0.001, "memory_monitor_refresh_ms": 200}
head = {"include_dashboard": False, "num_cpus": 0, "object_store_memory": 80 * 2**20, "_system_config": settings}
cluster = Cluster(initialize_head=True, head_node_args=head)
cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
os.environ["RAY_ADDRESS"] = cluster.address
def use():
    memory = bytearray(2**29)
    time.sleep(60)
with ray_cluster("auto") as executor:
    print(executor.submit(use).exception())
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_worker_that_ray_ends_for_its_memory() -> None:
    printed = subprocess.run([sys.executable, "-c", MEMORY_MONITOR], check=True, capture_output=True, text=True)
    (error,) = printed.stdout.splitlines()
    assert "ran out of memory" in error
    assert "node" in error


@pytest.mark.parametrize(
    "address", ["rat", "ray://", "ray://head", "ray://head:port", "http://head:1", "127.0.0.1:1"]
)
def test_invalid_addresses(address: str) -> None:
    with raises_input_error("cluster", address), ray_cluster(address):
        pass


@pytest.mark.parametrize(
    "address", ["ray://127.0.0.1:1", "ray://no.such.host.invalid:10001", "ray://127.0.0.1:70000"]
)
def test_nobody_answers(address: str) -> None:
    with raises_input_error("nobody answers", address), ray_cluster(address):
        pass


def test_nobody_answers_where_ray_says_the_cluster_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with raises_input_error("nobody answers", ":1", "this machine"), ray_cluster("auto"):
        pass


def test_ray_may_say_that_the_cluster_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:1")
    with raises_input_error("nobody answers", "ray://127.0.0.1:1"), ray_cluster("auto"):
        pass


@pytest.mark.usefixtures("ray_nodes")
def test_other_versions_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.__version__", "1.0.0")
    with raises_input_error("1.0.0", "ersion"), ray_cluster("auto"):
        pass
    assert not ray.is_initialized()


def test_no_cluster_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)
    monkeypatch.setattr("ray._private.utils.read_ray_address", lambda *_: None)
    with raises_input_error("auto", "ray start"), ray_cluster("auto"):
        pass


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["gpus=1"], "gpu"),
        (["memory=4"], "memory"),
        (["gpu"], "gpu"),
        (["gpu=a"], "a"),
        (["gpu=0"], "0"),
        (["cpu=-1"], "-1"),
        (["cpu=nan"], "nan"),
        (["cpu=inf"], "inf"),
        (["gpu=2"], "2"),
        ({"cpu": "1"}, "1"),
    ],
)
def test_invalid_resources(given: Any, named: str) -> None:
    with raises_input_error("resource", named):
        Resources.parse(given)


def test_resources() -> None:
    assert Resources.parse(["gpu=0.25", "cpu=2"]) == Resources.parse({"cpu": 2, "gpu": 0.25}) == Resources(2, 0.25)
    assert str(Resources(2, 0.25)) == "cpu=2, gpu=0.25"


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "slots"),
    [
        (Resources(), 8, 2, 8),
        (Resources(2), 7, 0, 3),
        (Resources(0.1), 1, 0, 10),
        (Resources(gpu=1), 8, 2, 2),
        (Resources(gpu=1), 8, 0, 0),
        (Resources(gpu=0.25), 6, 2, 6),
        (Resources(gpu=0.4), 8, 2, 4),  # Ray gives no training parts of two GPUs
        (Resources(gpu=0.1), 16, 1, 10),
    ],
)
def test_slots(resources: Resources, cpus: float, gpus: float, slots: int) -> None:
    assert resources.slots(cpus, gpus) == slots


def test_device() -> None:
    assert Resources().for_device("auto", "auto", 2) == (Resources(gpu=1), "cuda")
    assert Resources().for_device("auto", "sparse", 2) == (Resources(gpu=0), "cpu")
    assert Resources().for_device("auto", "eager", 0) == (Resources(gpu=0), "cpu")
    assert Resources(gpu=0.5).for_device("auto", "auto", 0) == (Resources(gpu=0.5), "cuda")
    assert Resources().for_device("cpu", "auto", 2) == (Resources(gpu=0), "cpu")
    assert Resources().for_device("cuda", "auto", 0) == (Resources(gpu=1), "cuda")
    for resources, device in ((Resources(gpu=1), "cpu"), (Resources(), "cuda:1")):
        with raises_input_error(device):
            resources.for_device(device, "auto", 1)
