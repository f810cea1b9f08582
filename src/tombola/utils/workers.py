"""Executors: run trainings in this thread, or in parallel in threads or processes."""

from __future__ import annotations

import functools
import multiprocessing
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from threadpoolctl import threadpool_limits

from tombola.utils.errors import InputError
from tombola.utils.gpus import GpuTurns, worker_gpus


def cores() -> int:
    """The number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_count(workers: int | None, device: str = "cpu") -> int:
    """How many runs are trained in parallel: by default one on each core, for `cuda` on each GPU, for `cuda:N` one.

    Raises `InputError` for fewer than one.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers: should be at least 1, not {workers}")
    return workers or (cores() if device == "cpu" else max(1, len(worker_gpus(device))))


def processor() -> str:
    """The name of this machine's processor, and its widest vector instructions."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux, or not readable
        return platform.processor() or platform.machine()
    lines = dict(line.partition(":")[::2] for line in info.splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in lines.items()}
    wide = [name for name in ("avx2", "avx512f") if name in fields.get("flags", "").split()]
    return f"{fields.get('model name', platform.machine())}, {' '.join(wide) or 'no AVX'}"


class InlineExecutor(Executor):
    """Runs each call immediately, in the calling thread, so interrupts reach it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - future.result() raises it
            future.set_exception(error)
        return future


class _StartedWhenNeeded(Executor):
    """An executor that is made for its first call."""

    def __init__(self, make: Callable[[], Executor]) -> None:
        self._made = functools.cache(make)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._made().submit(fn, *args, **kwargs)


@contextmanager
def parallel_executor(
    workers: int, threads: bool | Callable[[], bool] = False, gpus: Sequence[str] = ()
) -> Iterator[Executor]:
    """An executor for `workers` parallel calls: this thread for one, otherwise as many threads or processes. They
    are started, and `threads` is called, at the first call. Each process sees one of `gpus` (see `worker_gpus`), in
    turns; all that this process sees if none are given.

    Linear algebra libraries use one thread per call, because the workers already use the cores. If an exception
    leaves the block, even a keyboard interrupt, running calls are cancelled: processes immediately, threads at their
    next call of `raise_if_cancelled`. Processes do not import the main module, so a script needs no
    `if __name__ == "__main__":`.

    Raises `InputError` in such a process: there, a module that is imported for its functions trains by itself.
    """
    if _is_worker:
        raise InputError(
            "a module that is imported in worker processes starts trainings: put the call under "
            '`if __name__ == "__main__":`, or give workers=1'
        )
    with threadpool_limits(1, user_api="blas"):
        if workers == 1:
            yield InlineExecutor()
            return
        with ExitStack() as stack:

            def start() -> Executor:
                in_threads = threads() if callable(threads) else threads
                return stack.enter_context(_threads(workers) if in_threads else _processes(workers, gpus))

            yield _StartedWhenNeeded(start)


class Cancelled(BaseException):
    """The work of this thread was cancelled."""


_thread_state = threading.local()


def raise_if_cancelled() -> None:
    """Raises `Cancelled` in a worker thread whose work was cancelled. Long work should call it regularly."""
    event = getattr(_thread_state, "event", None)
    if event is not None and event.is_set():
        raise Cancelled


@contextmanager
def _threads(workers: int) -> Iterator[Executor]:
    event = threading.Event()
    executor = ThreadPoolExecutor(workers, initializer=lambda: setattr(_thread_state, "event", event))
    try:
        yield executor
    except BaseException:
        event.set()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


class _WorkerProcess(SpawnProcess):
    """A process that does not import the main module: the script would start its trainings once more."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")  # where `spawn` looks for what to import
        try:
            return SpawnProcess._Popen(process_obj)
        finally:
            sys.modules["__main__"] = main


class _WorkerContext(SpawnContext):
    """Spawns: a fork would copy torch's thread pools while they run."""

    Process = _WorkerProcess


@contextmanager
def _processes(workers: int, gpus: Sequence[str]) -> Iterator[Executor]:
    others, context = set(multiprocessing.active_children()), _WorkerContext()
    turns = GpuTurns.of(gpus, context)
    arguments = turns, workers
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=arguments)
    with _interrupts_blocked():
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
def _interrupts_blocked() -> Iterator[None]:
    """Processes started in this block ignore Ctrl-C, which would break the pool while they are importing."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_is_worker = False
"""Whether this process is one of those that train."""
_processes_here = 1
"""How many of them train at the same time."""


def own_cores() -> int:
    """This process' share of the cores, if other workers, or other processes that torchrun started on this machine,
    use theirs; at least 1."""
    return max(1, cores() // (_processes_here * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _start_worker(turns: GpuTurns, workers: int) -> None:
    """Leave Ctrl-C to the parent process, exit when the parent does, and use one GPU."""
    global _is_worker, _processes_here
    _is_worker, _processes_here = True, workers
    turns.take()
    threadpool_limits(1, user_api="blas")
    _follow_parent()


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent process, and exit when it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def exit_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


def start_process(function: Callable[..., None], *args: Any) -> BaseProcess:
    """Start `function` in a process that leaves Ctrl-C to this one, exits when this one does, and does not import the
    main module."""
    with _interrupts_blocked():
        process = _WorkerContext().Process(target=_run_as_child, args=(function, args))
        process.start()
    return process


def _run_as_child(function: Callable[..., None], args: tuple[Any, ...]) -> None:
    _follow_parent()
    function(*args)
