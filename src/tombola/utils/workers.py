"""Where trainings run: in this very thread, or side by side in other threads or processes."""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits


def cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """This machine's processor, and the widest vectors it has."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = dict(line.partition(":")[::2] for line in info.read_text().splitlines() if ":" in line)
        fields = {name.strip(): value.strip() for name, value in lines.items()}
        wide = [name for name in ("avx2", "avx512f") if name in fields.get("flags", "").split()]
        return f"{fields.get('model name', platform.machine())}, {' '.join(wide) or 'no AVX'}"
    return platform.processor() or platform.machine()


class InlineExecutor(Executor):
    """Calls at once, in this very thread: nothing to start, and interrupts go where they should."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised by future.result()
            future.set_exception(error)
        return future


@contextmanager
def parallel_executor(workers: int, threads: bool = False) -> Iterator[Executor]:
    """An executor for `workers` calls at once: this thread for one, otherwise as many threads or processes.

    Libraries for linear algebra are held to one thread for each call: that is what the workers are for. When the
    block is left by an exception, a keyboard interrupt included, work under way is abandoned: processes at once,
    threads when they next call `raise_if_cancelled`.
    """
    with threadpool_limits(1, user_api="blas"):
        if workers == 1:
            yield InlineExecutor()
        elif threads:
            with _threads(workers) as executor:
                yield executor
        else:
            with _processes(workers) as executor:
                yield executor


class Cancelled(BaseException):
    """Nobody waits any more for what this thread does."""


_told = threading.local()


def raise_if_cancelled() -> None:
    """To be called now and then by long work. Raises `Cancelled` in a worker thread whose work is abandoned."""
    event = getattr(_told, "event", None)
    if event is not None and event.is_set():
        raise Cancelled


@contextmanager
def _threads(workers: int) -> Iterator[Executor]:
    event = threading.Event()
    executor = ThreadPoolExecutor(workers, initializer=lambda: setattr(_told, "event", event))
    try:
        yield executor
    except BaseException:
        event.set()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def _processes(workers: int) -> Iterator[Executor]:
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's thread pools in mid-flight
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    with _no_interrupts():
        for _ in range(workers):  # each starts a process
            executor.submit(os.getpid)
    try:
        yield executor
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Processes started within it never hear of a Ctrl-C, which would break the pool while they still import."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent process, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(1, user_api="blas")
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
