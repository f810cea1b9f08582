"""RayExecutor on a cluster of three nodes, which workers and nodes leave."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.errors import raises_input_error
from tests.support.ray_nodes import NODES, RayNodes, end_process, place, places, wait_for_end, wait_until, write_place

ray = pytest.importorskip("ray", reason="Ray is not installed")
from tombola.integrations.ray_calls import NAMESPACE, SharedValue  # noqa: E402
from tombola.integrations.ray_cluster import ray_cluster  # noqa: E402
from tombola.integrations.ray_errors import WorkerLost  # noqa: E402
from tombola.integrations.ray_executor import RayExecutor  # noqa: E402


@pytest.fixture
def executor(connected: RayNodes) -> Iterator[RayExecutor]:  # noqa: ARG001
    with ray_cluster("auto") as executor:
        assert executor.slots() == executor.nodes() == NODES
        yield executor
    assert ray.is_initialized()  # it was not connected by the block


def raise_os_error(*where: str) -> str:
    if not where or place() in where:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "weights")
    return place()


def test_calls_run_on_all_nodes(executor: RayExecutor, tmp_path: Path) -> None:
    futures = [executor.submit(write_place, tmp_path, seconds=1.0) for _ in range(NODES)]
    assert len({future.result() for future in futures}) == NODES
    assert executor.submit(sum, [1, 2]).result() == 3


class _Unpicklable(RuntimeError):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"sum {one + two}")


def raise_unpicklable() -> None:
    raise _Unpicklable(1, 2)


def test_a_future_has_the_exception_that_was_raised(executor: RayExecutor) -> None:
    error = executor.submit(raise_os_error).exception()
    assert type(error) is OSError
    assert (error.errno, error.filename) == (errno.ENOSPC, "weights")
    assert "raise_os_error" in error.__notes__[0]  # where it was raised
    with pytest.raises(RuntimeError, match="_Unpicklable: sum 3"):
        executor.submit(raise_unpicklable).result()


def test_a_result_that_cannot_be_pickled_is_an_error_in_one_line(executor: RayExecutor) -> None:
    error = executor.submit(threading.Lock).exception()
    assert "lock" in str(error)
    assert "\n" not in str(error)


def test_a_worker_that_dies_is_named_in_one_line(executor: RayExecutor) -> None:
    with pytest.raises(WorkerLost, match="killed") as caught:
        executor.submit(end_process).result()
    address = ray.nodes()[0]["NodeManagerAddress"]
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_node_that_dies_is_named_and_missed(executor: RayExecutor, ray_nodes: RayNodes, tmp_path: Path) -> None:
    futures = [executor.submit(write_place, tmp_path) for _ in range(NODES)]
    (killed, _), *_ = places(tmp_path, NODES)
    ray_nodes.kill(killed)
    (lost,), _ = wait(futures, return_when=FIRST_COMPLETED)
    with pytest.raises(WorkerLost, match=killed[:8]):
        lost.result()
    for future in futures:
        future.cancel()
    wait_until(lambda: executor.nodes() == executor.slots() == NODES - 1)


def test_a_node_that_does_not_answer_is_given_up(executor: RayExecutor, ray_nodes: RayNodes, tmp_path: Path) -> None:
    future = executor.submit(write_place, tmp_path)
    ((silent, _),) = places(tmp_path, 1)
    with ray_nodes.hanging(silent), pytest.raises(WorkerLost, match=silent[:8]):
        future.result(timeout=60)
    assert executor.submit(place).result() != silent


def test_memory_that_runs_out_is_one_line(executor: RayExecutor) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise ray.exceptions.OutOfMemoryError("Memory on the node was used up.\nRefer to the documentation.")

    error = executor.submit(killed).exception()
    assert isinstance(error, WorkerLost)
    assert "memory" in str(error)
    assert "\n" not in str(error)


def test_a_node_with_a_full_disk_gets_no_further_calls(executor: RayExecutor, ray_nodes: RayNodes) -> None:
    full, *others = (node.node_id for node in ray_nodes.nodes)
    results = [executor.submit(raise_os_error, full) for _ in range(NODES)]
    wait(results)
    while not any(future.exception() for future in results):  # until a call comes to that node
        results = [executor.submit(raise_os_error, full) for _ in range(NODES)]
        wait(results)
    assert {executor.submit(raise_os_error, full).result() for _ in range(6)} <= set(others)


def test_calls_come_to_nodes_that_failed_if_there_are_no_others(
    executor: RayExecutor, ray_nodes: RayNodes, tmp_path: Path
) -> None:
    failing, last, third = (node.node_id for node in ray_nodes.nodes)
    ray_nodes.kill(third)
    wait_until(lambda: executor.nodes() == 2)
    executor._nodes.failed(failing)
    running = executor.submit(write_place, tmp_path)
    assert places(tmp_path, 1)[0][0] == last
    waiting = executor.submit(place)
    assert not waiting.done()
    ray_nodes.kill(last)
    assert isinstance(running.exception(), WorkerLost)
    assert waiting.result(timeout=120) == failing


def summed(shared: Any) -> float:
    return float(shared().sum())


def test_shared_values_are_fetched(executor: RayExecutor) -> None:
    shared = executor.share(np.arange(1000))
    assert {executor.submit(summed, shared).result() for _ in range(3)} == {499500.0}
    assert executor.submit(sum, [1], start=2).result() == 3


def put_elsewhere() -> tuple[str, list[Any]]:
    return place(), [ray.put(np.ones(200_000))]


def test_a_shared_value_that_is_lost_with_a_node_is_named(executor: RayExecutor, ray_nodes: RayNodes) -> None:
    node, (ref,) = executor.submit(put_elsewhere).result()
    ray_nodes.kill(node)
    with pytest.raises(WorkerLost, match="value that was lost"):
        executor.submit(summed, SharedValue(ref)).result()


def test_cancelled_calls_end(executor: RayExecutor, tmp_path: Path) -> None:
    futures = [executor.submit(write_place, tmp_path) for _ in range(NODES + 1)]  # one waits
    processes = [process for _, process in places(tmp_path, NODES)]
    for future in futures:
        assert future.cancel()
    for process in processes:
        wait_for_end(process)


class _Left(Exception):
    pass


def leave(executor: RayExecutor, folder: Path) -> None:
    with executor:
        executor.submit(write_place, folder)
        places(folder, 1)
        raise _Left


def test_an_exception_cancels_what_is_running(executor: RayExecutor, tmp_path: Path) -> None:
    with pytest.raises(_Left):
        leave(RayExecutor(), tmp_path)
    ((_, process),) = places(tmp_path, 1)
    wait_for_end(process)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(place)


def imported(name: str) -> str:
    return str(importlib.import_module(name).hello())


def test_the_users_own_modules_travel(executor: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "here" / "own_package_of_a_user"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from own_package_of_a_user.part import hello\n")
    (package / "part.py").write_text("def hello():\n    return 'from afar'\n")
    monkeypatch.syspath_prepend(package.parent)
    importlib.import_module(package.name)
    executor.submit(place).result()
    (tmp_path / "here").rename(tmp_path / "elsewhere")  # the nodes do not have this folder
    assert executor.submit(imported, package.name).result() == "from afar"
    assert executor.submit(sys.modules[package.name].hello).result() == "from afar"
    del sys.modules[package.name], sys.modules[f"{package.name}.part"]


def test_a_node_without_tombola_is_named(executor: RayExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    def without() -> Any:
        def answer(*_: Any) -> Any:
            import ray

            return ray.get_runtime_context().get_node_id(), "No module named 'tombola'"

        return answer

    monkeypatch.setattr("tombola.integrations.ray_executor.worker_function", without)
    with RayExecutor() as other, raises_input_error("tombola", "node"):
        other.submit(place).result()
    assert executor.submit(place).result()


def test_places_are_forgotten(executor: RayExecutor) -> None:
    from ray.experimental.internal_kv import _internal_kv_list

    before = set(_internal_kv_list("", namespace=NAMESPACE))
    futures: list[Future[Any]] = [
        executor.submit(place),
        executor.submit(raise_os_error),
        executor.submit(end_process),
    ]
    wait(futures)
    assert set(_internal_kv_list("", namespace=NAMESPACE)) <= before
