"""Job: the processes that torchrun started with the same command. The first conducts, and the others follow it."""

from __future__ import annotations

import atexit
import functools
import itertools
import logging
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

import torch
import torch.distributed as distributed
from pydantic import BaseModel

from tombola.runs.distributed_store import is_distributed
from tombola.utils.errors import InputError, Unreachable
from tombola.utils.launcher import launched_processes

T = TypeVar("T")
Parameters = ParamSpec("Parameters")

PATIENCE = timedelta(days=365)
"""The others may wait that long for the first process, which may have other work. If it ends, they end at once."""

JOINING = timedelta(minutes=30)
"""The time for all processes to start."""


class Message(Protocol):
    """What the first process sends: the others call it."""

    def __call__(self, job: Job, /) -> object: ...


@dataclass(frozen=True)
class _Ended:
    """The last message: how the call ended in the first process."""

    value: Any = None
    error: BaseException | None = None


@dataclass
class Job:
    """Several processes, which are connected by a group of Gloo."""

    rank: int
    size: int
    group: Any
    """The `ProcessGroup` for objects, and for tensors on the CPU."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """The device of this process."""
    tensor_group: Any = None
    """The `ProcessGroup` for tensors on `device`."""
    in_step: bool = True
    """Whether the others wait for a message: False after an exception in a block of `exchange`."""

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """What all processes do together; Ctrl-C waits for the end of the block. If an exception leaves it, they may
        be at different points, and the job can only end. Raises `Unreachable` if another process has ended."""
        with _interrupts_deferred():
            self.in_step = False
            try:
                yield
            except RuntimeError as error:
                if not _is_disconnection(error):
                    raise
                raise Unreachable("another process of this job has ended") from error
            self.in_step = True

    def send(self, message: object) -> None:
        """Send a message to all others."""
        distributed.broadcast_object_list([message], 0, group=self.group)

    def receive(self) -> Any:
        """The next message of the first process."""
        messages: list[Any] = [None]
        distributed.broadcast_object_list(messages, 0, group=self.group)
        return messages[0]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in all of them."""
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value, group=self.group)
        return values

    def conduct(self, call: Callable[[], T]) -> T:
        """Make the call in the first process, and say to the others how it ended."""
        try:
            value = call()
        except BaseException as error:
            if self.in_step:
                self._end(_Ended(error=_picklable(error)))
            raise
        self._end(_Ended(value))
        return value

    def _end(self, message: _Ended) -> None:
        with self.exchange():
            self.send(message)

    def follow(self) -> Any:
        """In another process: do what the first one says, and return or raise what its call does. Raises
        `Unreachable` if the first process ends without a last message."""
        with _quiet(), self.exchange(), _interrupts_ignored():
            while not isinstance(message := self.receive(), _Ended):
                message(self)
        if message.error is not None:
            raise message.error
        return message.value


_conducted: Job | None = None
_failed = False
"""Whether a job was given up, so that other processes may be anywhere."""


def conducted_job() -> Job | None:
    """The job that this process conducts, if it does."""
    return _conducted


def in_one_job(call: Callable[[], T], about: str = "") -> T:
    """Make the call once, however many processes do so: the first process makes it, and the others take part in its
    trainings. All of them return what it returns, or raise what it raises.

    Raises `InputError` if `about`, which describes the call, differs between processes, and `Unreachable` if another
    process ends.
    """
    global _conducted
    if _conducted is not None or not (launched_processes() > 1 or is_distributed()):
        return call()
    if _failed:
        raise Unreachable("the processes of this job have failed before; start them again")
    with _joined() as job:
        with job.exchange():
            described = job.gather(about)
        if len(set(described)) > 1:
            raise InputError(
                "under torchrun all processes make one call together; here its arguments differ between processes"
            )
        if job.rank > 0:
            followed: T = job.follow()
            return followed
        _conducted = job
        try:
            return job.conduct(call)
        finally:
            _conducted = None


def once_in_job(function: Callable[Parameters, T]) -> Callable[Parameters, T]:
    """Decorates a function whose calls are made with `in_one_job`."""

    @functools.wraps(function)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> T:
        plain = str, int, float, Path, BaseModel
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, plain)]
        return in_one_job(lambda: function(*args, **kwargs), repr(given))

    return wrapper


_joins = itertools.count()


@contextmanager
def _joined() -> Iterator[Job]:
    """The job of all processes. If torch's default group exists, it stays; otherwise there is one for this block."""
    own = not distributed.is_initialized()
    if own:
        from torch.distributed.distributed_c10d import PrefixStore  # missing where torch is built without it
        from torch.distributed.rendezvous import rendezvous

        store, rank, size = next(rendezvous("env://", timeout=JOINING))
        # The store may have addresses of a former group: of this process, or of one that torchrun has restarted.
        restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = PrefixStore(f"tombola-{restarts}-{next(_joins)}", store)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
    group = distributed.group.WORLD if own else distributed.new_group(backend="gloo", timeout=PATIENCE)
    job = Job(distributed.get_rank(), distributed.get_world_size(), group, tensor_group=group)
    try:
        yield job
    except BaseException as error:
        global _failed
        if not job.in_step:
            _failed = True
            status = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
            atexit.register(_exit_at_once, status)
        raise
    finally:
        if job.in_step and own:
            distributed.destroy_process_group()


def _exit_at_once(status: int) -> None:
    """At its exit, Python would wait for operations in which other processes will not take part."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _is_disconnection(error: RuntimeError) -> bool:
    return isinstance(error, distributed.DistError) or "gloo/transport" in str(error)


def _picklable(error: BaseException) -> BaseException:
    """`error`, or what stands for it where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - errors of any library
        return RuntimeError(str(error).partition("\n")[0])
    return error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings and messages: the first process shows them."""
    level = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Ctrl-C takes effect after the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: arrived.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if arrived:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Leave Ctrl-C to the first process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
