from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.errors import raises_input_error
from tombola.utils.workers import (
    Cancelled,
    InlineExecutor,
    cores,
    parallel_executor,
    processor,
    raise_if_cancelled,
    worker_count,
)


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


UNGUARDED = """
import os
from tombola.utils.workers import parallel_executor

with parallel_executor(2) as executor:
    ran = {executor.submit(os.getpid).result() for _ in range(4)}
print("once" if os.getpid() not in ran else "in this process")
"""


def test_scripts_need_no_guard_against_their_import_in_other_processes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "once\n", "")


def start_trainings() -> None:
    """What a module does that trains when it is imported."""
    with parallel_executor(1):
        pass


def test_worker_processes_do_not_start_trainings() -> None:
    with parallel_executor(2) as executor, raises_input_error("__main__"):
        executor.submit(start_trainings).result()


def test_by_default_there_is_a_worker_for_each_core() -> None:
    assert worker_count(None) == cores()
    assert worker_count(None, "cuda:0") == 1
    assert worker_count(3, "cuda") == 3
    with raises_input_error("workers", "at least 1"):
        worker_count(0)


def test_the_machine_is_described() -> None:
    assert cores() >= 1
    assert processor()


def test_nothing_is_started_before_the_first_call() -> None:
    asked: list[None] = []

    def threads() -> bool:
        asked.append(None)
        return True

    with parallel_executor(2, threads):
        assert not asked
    with parallel_executor(2, threads) as executor:
        assert [executor.submit(int, "3").result() for _ in range(3)] == [3, 3, 3]
    assert len(asked) == 1
