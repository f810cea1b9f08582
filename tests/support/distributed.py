"""Functions run in two processes of one job on this machine, with gloo; they report through files in a folder."""

from __future__ import annotations

import os
import signal
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing, nn

needs_gloo = pytest.mark.skipif(
    not (distributed.is_available() and distributed.is_gloo_available()) or os.name == "nt", reason="no gloo"
)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 3))


def forkserver() -> ForkServerContext:
    """Starts processes in which libraries are imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed.fsdp", "tombola.pruning.hold", "tombola._run_experiment"])
    return context


def heed_interrupts() -> None:
    """Ctrl-C is not ignored in this process, as it is where the tests were started in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def in_two_processes(work: Any, folder: Path, *arguments: Any) -> None:
    """Call `work(rank, folder, *arguments)` in each process."""
    forkserver()
    multiprocessing.start_processes(_start, (work, folder, *arguments), nprocs=2, start_method="forkserver")


def _start(rank: int, work: Any, folder: Path, *arguments: Any) -> None:
    torch.set_num_threads(1)
    heed_interrupts()
    rendezvous = folder / f"rendezvous-{'-'.join(map(str, arguments))}"
    distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=2)
    work(rank, folder, *arguments)
    distributed.destroy_process_group()
