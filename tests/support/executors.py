"""Executors whose workers share nothing with the process that submits to them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from tombola.studies.training_task import TrainingTask
from tombola.utils.workers import InlineExecutor


class RecordingExecutor(InlineExecutor):
    """Calls in this thread what was pickled for it, and records the tasks."""

    def __init__(self) -> None:
        self.tasks: list[TrainingTask] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        fn, args = pickle.loads(pickle.dumps((fn, args)))
        self.tasks += args
        return super().submit(fn, *args, **kwargs)


@dataclass
class Shared:
    """A value that a `SharingExecutor` keeps for its workers."""

    place: int

    def __call__(self) -> Any:
        return SharingExecutor.kept[self.place]


class SharingExecutor(RecordingExecutor):
    """Keeps shared values where its workers find them."""

    kept: list[Any] = []

    def share(self, value: Any) -> Shared:
        self.kept.append(value)
        return Shared(len(self.kept) - 1)


def processes(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
