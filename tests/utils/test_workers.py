from __future__ import annotations

import threading
from typing import Any

import pytest

from tombola.utils.workers import Cancelled, InlineExecutor, cores, parallel_executor, processor, raise_if_cancelled


def test_an_inline_executor_calls_in_this_thread_and_keeps_exceptions() -> None:
    executor = InlineExecutor()
    assert executor.submit(threading.get_ident).result() == threading.get_ident()
    assert executor.submit(int, "12").result() == 12
    assert isinstance(executor.submit(int, "x").exception(), ValueError)
    with parallel_executor(1) as executor:
        assert executor.submit(threading.get_ident).result() == threading.get_ident()


def test_threads_run_side_by_side() -> None:
    both_here = threading.Barrier(2, timeout=10)
    with parallel_executor(2, threads=True) as executor:
        futures = [executor.submit(both_here.wait) for _ in range(2)]
        assert sorted(future.result() for future in futures) == [0, 1]


def test_running_threads_are_cancelled_when_the_block_raises() -> None:
    started = threading.Event()

    def work() -> None:
        started.set()
        while True:
            raise_if_cancelled()

    futures: list[Any] = []

    def interrupt() -> None:
        with parallel_executor(2, threads=True) as executor:
            futures.append(executor.submit(work))
            assert started.wait(10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert isinstance(futures[0].exception(), Cancelled)
    raise_if_cancelled()  # the main thread is not cancelled


def test_the_machine_is_described() -> None:
    assert cores() >= 1
    assert processor()
