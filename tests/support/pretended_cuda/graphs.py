"""CUDA graphs: what is captured is recorded and rolled back, and replayed on the same tensors."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from tests.support.pretended_cuda.placement import CPU, Placement, storage_of, tensors_in
from tests.support.pretended_cuda.waits import Waits

Pool = tuple[int, int]


@dataclass(frozen=True)
class RecordedOperation:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    results: list[Tensor | None]
    """None in place of those that were changed in place, or are views."""


class PretendedGraph:
    """Stands for `torch.cuda.CUDAGraph`.

    A graph whose pool is that of an earlier one may use memory that was free when the earlier one had been captured,
    and which a replay of the earlier one uses again: then floats that the later one made are NaN.
    """

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        self.operations: list[RecordedOperation] = []

    def replay(self) -> None:
        self._graphs.replay(self)

    def pool(self) -> Pool:
        return next(pool for pool, members in self._graphs.pools.items() if self in members)

    def reset(self) -> None:
        self.operations.clear()


@dataclass
class Graphs:
    """All graphs of the device, and that which is captured now."""

    placement: Placement
    waits: Waits
    capturing: PretendedGraph | None = None
    pools: dict[Pool, weakref.WeakSet[PretendedGraph]] = field(default_factory=dict)
    replayed: Callable[[RecordedOperation], None] = lambda _: None
    """Called with each operation of a replay."""
    off: bool = False
    """Operations of a replay, and of copies, are neither checked nor recorded."""
    _before: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _order: Iterator[int] = field(default_factory=itertools.count)
    _captured: weakref.WeakKeyDictionary[PretendedGraph, int] = field(default_factory=weakref.WeakKeyDictionary)

    def new_pool(self) -> Pool:
        return 0, next(self._order)

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        before, self.off = self.off, True
        try:
            yield
        finally:
            self.off = before

    @contextlib.contextmanager
    def capture(self, graph: PretendedGraph, pool: Pool | None = None) -> Iterator[None]:
        """Record what is done to the tensors of the device, and undo it."""
        self.pools.setdefault(pool or self.new_pool(), weakref.WeakSet()).add(graph)
        self._captured[graph] = next(self._order)
        self.capturing, self.waits.capturing = graph, True
        self._before.clear()
        random_state = torch.get_rng_state()
        try:
            yield
        finally:
            self.capturing, self.waits.capturing = None, False
            with self.quiet(), torch.no_grad():
                for whole, value in self._before.values():
                    whole.copy_(value)
            self._before.clear()
            torch.set_rng_state(random_state)

    def remember(self, tensors: list[Tensor]) -> None:
        """Called before each captured operation, for the roll-back. With all its tensors, not only those that its
        schema calls mutable: the statistics of batch normalisation are not."""
        for tensor in tensors:
            storage = storage_of(tensor)
            if storage is not None and storage._cdata not in self._before:
                whole = torch.empty(0, dtype=tensor.dtype).set_(storage)
                self._before[storage._cdata] = whole, whole.clone()

    def record(self, function: Any, arguments: Any, keywords: Any, result: object) -> None:
        """A number, and a CPU tensor that stands for one, is taken as it is at the capture."""
        assert self.capturing is not None
        arguments, keywords = tree_map(self._as_of_now, (arguments, keywords))
        given = {storage_of(tensor)._cdata for tensor in tensors_in((arguments, keywords))}
        made = [None if storage_of(tensor)._cdata in given else tensor for tensor in tensors_in(result)]
        self.capturing.operations.append(RecordedOperation(function, arguments, keywords, made))

    def _as_of_now(self, value: object) -> object:
        on_the_cpu = isinstance(value, Tensor) and self.placement.device_of(value) == CPU
        return value.detach().clone() if on_the_cpu else value

    def replay(self, graph: PretendedGraph) -> None:
        with self.quiet(), torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            for operation in graph.operations:
                results = tensors_in(operation.function(*operation.arguments, **operation.keywords))
                for old, new in zip(operation.results, results, strict=True):
                    if old is not None:
                        old.copy_(new)
                self.replayed(operation)
            for other in self.pools[graph.pool()]:
                if self._captured[other] > self._captured[graph]:
                    _overwrite(other)


def _overwrite(graph: PretendedGraph) -> None:
    for operation in graph.operations:
        for tensor in operation.results:
            if tensor is not None and tensor.is_floating_point():
                tensor.fill_(torch.nan)
