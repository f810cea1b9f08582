"""Datasets that a training was handed, so that it need not read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from tombola.zoo.datasets.dataset import Dataset

_HANDED: ContextVar[Mapping[str, Callable[[], Dataset]]] = ContextVar("_HANDED", default={})  # noqa: B039 - not changed


@contextmanager
def handed_over(datasets: Mapping[str, Callable[[], Dataset]]) -> Iterator[None]:
    """In this block, and this thread, the dataset with one of these digests is what its function returns, whatever
    its name."""
    token = _HANDED.set(datasets)
    try:
        yield
    finally:
        _HANDED.reset(token)


def handed_dataset(digest: str) -> Dataset | None:
    """The dataset with this digest, if it was handed over."""
    dataset = _HANDED.get().get(digest)
    return None if dataset is None else dataset()
