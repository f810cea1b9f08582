"""The GPUs of this machine, and which of them a worker process uses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Any

import torch

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The environment variable by which CUDA hides devices. It is read when CUDA is first used."""


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, by the names that `CUDA_VISIBLE_DEVICES` has for them: numbers, UUIDs, or
    names of MIG instances, of which CUDA itself shows a process only the first."""
    count = torch.cuda.device_count()
    named = [name for part in os.environ.get(VISIBLE, "").split(",") if (name := part.strip())]
    if not named:
        return [str(number) for number in range(count)]
    return named if count and named[0].startswith("MIG-") else named[:count]


def worker_gpus(device: str) -> list[str]:
    """The GPUs among which the worker processes of `device` are divided; none if all use the same device."""
    return visible_gpus() if device == "cuda" else []


def count_sharing(workers: int, device: str) -> int:
    """How many of `workers` worker processes use the same GPU, at most; 1 on the CPU."""
    return 1 if device == "cpu" else -(-workers // max(1, len(worker_gpus(device))))


@dataclass(frozen=True)
class GpuTurns:
    """Gives each new process the next of `gpus`, in turns."""

    gpus: Sequence[str]
    started: Any
    """The number of processes so far, shared by them."""

    @classmethod
    def of(cls, gpus: Sequence[str], context: BaseContext) -> GpuTurns:
        return cls(gpus, context.Value("i", 0))

    def take(self) -> None:
        """Called in a new process, before CUDA is used there: hide all GPUs from it but one."""
        if not self.gpus:
            return
        with self.started.get_lock():
            turn = self.started.value
            self.started.value += 1
        os.environ[VISIBLE] = self.gpus[turn % len(self.gpus)]
