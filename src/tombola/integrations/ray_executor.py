"""RayExecutor: trainings on a Ray cluster, as a `concurrent.futures.Executor`."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, InvalidStateError
from concurrent.futures import wait as wait_for
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

import ray
from ray.exceptions import NodeDiedError, RayError
from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

from tombola.integrations.cluster_resources import Resources
from tombola.integrations.ray_calls import (
    Answer,
    Packed,
    SharedValue,
    forget_place,
    pack,
    place_of,
    to_answer,
    worker_function,
)
from tombola.integrations.ray_errors import original
from tombola.integrations.ray_nodes import REFRESH, Nodes
from tombola.utils.errors import Unreachable
from tombola.utils.own_sources import pack_own_sources
from tombola.utils.text import one_line

T = TypeVar("T")


@dataclass(eq=False)
class _Call:
    packed: Packed
    future: Future[Any] = field(default_factory=Future)
    key: str = ""
    """By which it is known where it is; another one each time it is started."""
    ref: Any = None
    """Of its result, in Ray."""
    avoids: set[str] = field(default_factory=set)
    """Nodes that it is not given to."""


class RayExecutor(Executor):
    """Runs each call in a worker process on a node of the cluster that Ray is connected to (see `ray_cluster`).

    A future has the exception that the call raised, or `WorkerLost`. Nothing is tried again here; a node on which
    calls fail gets no further ones for a while, if there are others. As a block, it cancels all calls if an exception
    leaves it. The user's own modules, imported before the first call, can be imported on the nodes.
    """

    def __init__(self, resources: Resources | None = None, device: str = "cpu") -> None:
        """`resources` are those of each call, with which it uses this device."""
        resources = resources or Resources()
        self.device = device
        self.sharing = resources.sharing
        """How many calls share a GPU."""
        self._nodes = Nodes(resources)
        gpus = resources.gpu or 0
        self._remote = ray.remote(max_retries=0, max_calls=0, num_cpus=resources.cpu, num_gpus=gpus)(  # 0: any number
            worker_function()
        )
        self._sources: list[Any] = []
        self._calls: dict[Future[Any], _Call] = {}
        self._closed = False
        self._lock = threading.Lock()
        self._ended = SimpleQueue[tuple[_Call, Any, Future[Any]] | None]()
        self._known = set(self._nodes.alive())
        self._dead: set[str] = set()
        self._thread = threading.Thread(target=self._serve, name="tombola-ray", daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """See `Executor`."""
        call = _Call(pack(fn, *args, **kwargs))
        with self._lock, _connected():
            if self._closed:
                raise RuntimeError("no calls can be submitted after shutdown")
            if not self._sources:
                self._sources.append(ray.put(pack_own_sources()))
            self._start(call)
            self._calls[call.future] = call
        call.future.add_done_callback(self._forget)
        return call.future

    def share(self, value: T) -> Callable[[], T]:
        """Put a value where each node fetches it once. Called in a worker, what is returned gives the value."""
        with _connected():
            return SharedValue(ray.put(value))

    def slots(self) -> int:
        """How many calls can run at once now."""
        with _connected():
            return sum(self._nodes.alive().values())

    def nodes(self) -> int:
        """How many nodes can run calls now."""
        with _connected():
            return len(self._nodes.alive())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `Executor`; also calls that are running are cancelled."""
        with self._lock:
            self._closed = True
            futures = list(self._calls)
        if cancel_futures:
            for future in futures:
                future.cancel()
        if wait:
            wait_for(futures)
        self._ended.put(None)  # wakes the thread
        if wait:
            self._thread.join()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown(cancel_futures=kind is not None)

    def _start(self, call: _Call) -> None:
        # Dead nodes, too: Ray may have asked one of them for a worker, and asks no other one on behalf of calls with
        # the same strategy until that connection has timed out.
        call.avoids = self._nodes.avoided() | self._dead
        labels = {"ray.io/node-id": NotIn(*call.avoids)} if call.avoids else None
        strategy = NodeLabelSchedulingStrategy(hard=labels) if labels else "DEFAULT"
        call.key = uuid.uuid4().hex
        remote = self._remote.options(scheduling_strategy=strategy)
        call.ref = ref = remote.remote(call.key, call.packed.call, call.packed.refs, self._sources)
        ref.future().add_done_callback(lambda done: self._ended.put((call, ref, done)))

    def _forget(self, future: Future[Any]) -> None:
        call = self._calls.pop(future)
        if future.cancelled():
            future.set_running_or_notify_cancel()
            _cancel(call.ref)
            _end_of(call)

    def _serve(self) -> None:
        """Pass on what has ended; not in Ray's own threads, which must not wait for Ray."""
        look = time.monotonic() + REFRESH
        while self._calls or not self._closed:
            with suppress(Empty):
                if ended := self._ended.get(timeout=REFRESH):
                    self._collect(*ended)
            if time.monotonic() > look:
                with suppress(Exception):  # the cluster may be gone: then Ray says so of each call
                    self._look_after_calls()
                look = time.monotonic() + REFRESH

    def _collect(self, call: _Call, ref: Any, done: Future[Any]) -> None:
        if ref is not call.ref:  # it was given up
            return
        if error := done.exception():
            self._finish(call, _end_of(call), error)
        else:
            answer = to_answer(done.result())
            self._finish(call, answer.node, answer)

    def _finish(self, call: _Call, node: str | None, ended: Answer | BaseException) -> None:
        error = ended.error if isinstance(ended, Answer) else ended
        if node is not None:
            (self._nodes.failed if error else self._nodes.succeeded)(node)
        with suppress(InvalidStateError):  # it was cancelled
            if isinstance(ended, Answer) and error is None:
                call.future.set_result(ended.value)
            elif error is not None:
                call.future.set_exception(original(error, self._nodes.name(node)))

    def _look_after_calls(self) -> None:
        """If nodes have died, give up the calls there: Ray waits for minutes for workers that cannot be reached.
        Start those again that may have come to a dead node without saying so, and those that avoid all nodes left."""
        alive = set(self._nodes.alive())
        dead, self._known = self._known - alive, alive
        self._dead |= dead
        for call in list(self._calls.values()):
            ref, node = call.ref, place_of(call.key) if dead else None
            if node in dead:
                call.ref = None
                self._finish(call, node, NodeDiedError(""))
                _cancel(ref)
            elif (dead and node is None and not _has_ended(call)) or (alive and alive <= call.avoids):
                self._start(call)
                _cancel(ref)
                if call.future.cancelled():  # meanwhile
                    _cancel(call.ref)


@contextmanager
def _connected() -> Iterator[None]:
    """Raises `Unreachable` where Ray's library cannot use the cluster."""
    try:
        yield
    except (RayError, ConnectionError, SystemError) as error:
        raise Unreachable(f"the connection to the cluster was lost ({one_line(error)})") from error


def _has_ended(call: _Call) -> bool:
    """Whether its result is somewhere, or on its way here."""
    ended, _ = ray.wait([call.ref], timeout=0, fetch_local=False)
    return bool(ended)


def _cancel(ref: Any) -> None:
    with suppress(Exception):  # the cluster may be gone
        ray.cancel(ref, force=True)


def _end_of(call: _Call) -> str | None:
    """Where a call was that could not say so itself; that is forgotten."""
    with suppress(Exception):  # the cluster may be gone
        node = place_of(call.key)
        forget_place(call.key)
        return node
    return None
