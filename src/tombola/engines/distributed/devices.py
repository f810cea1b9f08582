"""The device of each process of a job."""

from __future__ import annotations

import os
import socket
from collections import Counter
from dataclasses import dataclass

import torch
import torch.distributed as distributed

from tombola.engines.determinism import fix_cublas_workspace
from tombola.engines.distributed.job import Job
from tombola.utils.errors import InputError
from tombola.utils.gpus import visible_gpus


def use_device(job: Job, kind: str) -> None:
    """Give each process of the job a CPU or a GPU of its own, for `kind` `cpu` or `cuda`. Raises `InputError` if
    there are not enough GPUs."""
    with job.exchange():
        job.send(DeviceChoice(kind))
        found = DeviceChoice(kind)(job)
    if found:
        raise InputError(found)


@dataclass(frozen=True)
class DeviceChoice:
    """The message that all use a device of this kind."""

    kind: str

    def __call__(self, job: Job) -> str | None:
        """Choose this process' device. Returns what prevents it, in any process."""
        if self.kind == "cpu":
            job.device, job.tensor_group = torch.device("cpu"), job.group
            return None
        count = torch.cuda.device_count()
        # A launcher may show each process only its own GPU.
        index = int(os.environ.get("LOCAL_RANK", job.rank)) % count if count else 0
        name = visible_gpus()[index] if count else None
        machine = socket.gethostname()
        chosen = job.gather((machine, count, name))
        if found := gpu_problem(chosen):
            return found
        fix_cublas_workspace()
        job.device = torch.device("cuda", index)
        torch.cuda.set_device(job.device)
        job.tensor_group = distributed.new_group(backend="nccl")
        return None


def gpu_problem(chosen: list[tuple[str, int, str | None]]) -> str | None:
    """What is wrong with the machine, the number of GPUs and the GPU of each process."""
    processes = Counter(machine for machine, _, _ in chosen)
    shared = Counter((machine, name) for machine, _, name in chosen)
    for machine, count, name in chosen:
        if name is None or shared[machine, name] > 1:
            return (
                f"device: every process needs a GPU of its own, and {machine} has {count} for {processes[machine]}; "
                'start one process for each GPU (--nproc-per-node), or give device "cpu"'
            )
    return None
