"""Agreed: a store for the processes of one distributed job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as distributed

from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.runs.store import Store


@dataclass(frozen=True)
class DistributedStore(Store):
    """A store of which every process has its own part. A run counts as trained where all of them have it: otherwise
    one would answer from its store while the others wait for it in a collective operation. Processes ask the same
    questions in the same order."""

    def get(self, run: BaseRun) -> Outcome | None:
        """See `Store`."""
        outcome = super().get(run)
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        there = torch.tensor(int(outcome is not None), device=device)
        distributed.all_reduce(there, distributed.ReduceOp.MIN)
        return outcome if there.item() else None


def shared_store(folder: Path) -> Store:
    """The store in `folder`; in a distributed job, each process' part of it."""
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        return DistributedStore(folder / f"process-{distributed.get_rank()}")
    return Store(folder)
