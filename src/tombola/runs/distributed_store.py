"""The stores of the processes of a distributed job."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as distributed

from tombola.runs.bucket_store import BucketStore
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.runs.store import Store


@dataclass(frozen=True)
class DistributedStore(Store):
    """One process' part of a store. A run counts as trained only if every process has its outcome. Otherwise some
    processes would read it while the others wait for them in a collective operation. All processes must request the
    same runs in the same order."""

    def get(self, run: BaseRun, *, fresh: bool = False) -> Outcome | None:
        outcome = super().get(run, fresh=fresh)
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        found = torch.tensor(int(outcome is not None), device=device)
        distributed.all_reduce(found, distributed.ReduceOp.MIN)
        return outcome if found.item() else None


@dataclass(frozen=True)
class DistributedBucketStore(DistributedStore, BucketStore):
    """The same, in a bucket."""


def first_process() -> bool:
    """Whether this is the first process of a distributed job, or the only one."""
    return not is_distributed() or distributed.get_rank() == 0


def is_distributed() -> bool:
    """Whether this is one of several processes."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
