"""Calls on the workers of a Ray cluster: how functions get there, and how their results and errors come back.

A function and its arguments travel as bytes, which a worker unpickles once it can import what they refer to. Shared
values stand in them by their number; the references themselves travel beside, so that Ray keeps and fetches them.
"""

from __future__ import annotations

import io
import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray import cloudpickle
from ray.experimental import internal_kv

from tombola.utils.errors import InputError
from tombola.utils.own_sources import import_from
from tombola.utils.text import first_line

NAMESPACE = "tombola"
"""Of the places of calls in the cluster's key-value store."""


@dataclass(frozen=True)
class SharedValue:
    """A value in the object store of the cluster, of which each node fetches a copy once."""

    ref: Any

    def __call__(self) -> Any:
        return ray.get(self.ref)


@dataclass(frozen=True)
class Packed:
    """A call: a function and its arguments, and the shared values in them."""

    call: bytes
    refs: list[Any]


@dataclass(frozen=True)
class Answer:
    """Of a call."""

    node: str
    """Where it was."""
    value: Any
    error: Exception | None = None


def pack(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Packed:
    """A call that can be sent to a worker."""
    refs: list[Any] = []

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
        def persistent_id(self, value: Any) -> int | None:
            if not isinstance(value, SharedValue):
                return None
            refs.append(value.ref)
            return len(refs) - 1

    buffer = io.BytesIO()
    Pickler(buffer).dump((function, args, kwargs))
    return Packed(buffer.getvalue(), refs)


def unpack(packed: Packed) -> Callable[[], Any]:
    """The call; its shared values are fetched when they are called."""

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, number: int) -> SharedValue:
            return SharedValue(packed.refs[number])

    function, args, kwargs = Unpickler(io.BytesIO(packed.call)).load()
    return partial(function, *args, **kwargs)


def worker_function() -> Callable[..., Any]:
    """What Ray has its workers call: with a key, by which it is known where the call is when its process dies. It is
    pickled by value, so that a node without tombola can say so."""

    namespace = NAMESPACE

    def answer(key: str, call: bytes, refs: list[Any], sources: list[Any]) -> Any:
        from contextlib import suppress

        import ray
        from ray.experimental import internal_kv

        node = ray.get_runtime_context().get_node_id()
        try:
            with suppress(Exception):  # where it is, is no reason to lose it
                internal_kv._internal_kv_put(key, node, namespace=namespace)
            from tombola.integrations.ray_calls import Packed, perform_call

            return perform_call(node, Packed(call, refs), sources)
        except ImportError as error:
            return node, str(error)
        finally:
            with suppress(Exception):
                internal_kv._internal_kv_del(key, namespace=namespace)

    return answer


def perform_call(node: str, packed: Packed, sources: list[Any]) -> Answer:
    """Perform a call in a worker on this node; errors are answers, too. `sources` refer to the user's modules."""
    try:
        import_from(ray.get(sources[0]))
        return Answer(node, unpack(packed)())
    except Exception as error:  # noqa: BLE001 - it is raised where the result is wanted
        error.add_note(f"on node {node}:\n{traceback.format_exc()}")
        return Answer(node, None, _portable(error))


def place_of(key: str) -> str | None:
    """The node of a call that has not ended, or was lost with its worker; None if it has not begun."""
    node: bytes | None = internal_kv._internal_kv_get(key, namespace=NAMESPACE)
    return node.decode() if node else None


def forget_place(key: str) -> None:
    """For a call that could not do so itself."""
    internal_kv._internal_kv_del(key, namespace=NAMESPACE)


def to_answer(result: Any) -> Answer:
    """The answer that `worker_function` returned."""
    if isinstance(result, Answer):
        return result
    node, reason = result
    return Answer(node, None, InputError(f"tombola cannot be imported on a node of the cluster: {reason}"))


def _portable(error: Exception) -> Exception:
    """The error, if it can be pickled and unpickled; otherwise one that says the same."""
    try:
        pickle.loads(cloudpickle.dumps(error))
        return error
    except Exception:  # noqa: BLE001 - classes of the user's libraries
        return RuntimeError(f"{type(error).__name__}: {first_line(error)}")
