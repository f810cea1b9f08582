"""A search in two processes, whose training function is distributed; each test's processes report to its folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from tests.support.distributed import in_two_processes, needs_gloo, network
from tombola._find_ticket import find_ticket
from tombola.experiments.results import Results
from tombola.tickets.ticket import Ticket

pytestmark = needs_gloo


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 6, generator=generator)
    return x, x[:, :3].argmax(1)


def train(model: nn.Module) -> None:
    """Each process has its part of every batch."""
    x, y = data()
    there = distributed.is_initialized()
    rank, ranks = (distributed.get_rank(), distributed.get_world_size()) if there else (0, 1)
    trained = DistributedDataParallel(model) if there else model
    optimizer = torch.optim.Adam(model.parameters(), 0.02, weight_decay=0.01)
    for _ in range(20):
        rows = torch.randperm(64)[:16][rank::ranks]
        optimizer.zero_grad()
        functional.cross_entropy(trained(x[rows]), y[rows]).backward()
        optimizer.step()


def evaluate(model: nn.Module) -> float:
    x, y = data()
    return -float(functional.cross_entropy(model(x), y))


class Mortal:
    """Trains, and dies without a word in one of the trainings. No key sees what it holds."""

    def __init__(self, dies_at: int) -> None:
        self.dies_at = dies_at
        self.trainings = 0

    def __getstate__(self) -> None:
        return None

    def __call__(self, model: nn.Module) -> None:
        self.trainings += 1
        if self.trainings == self.dies_at:
            os._exit(3)
        train(model)


def searching(rank: int, folder: Path, name: str, dies_at: int) -> None:
    """One of the processes."""
    mortal = Mortal(dies_at)
    store = folder / "store"
    ticket, levels = find_ticket(network, mortal, evaluate=evaluate, levels=3, rate=0.4, rewind=5, store=store)
    ticket.save(folder / f"{name}-{rank}.safetensors")
    torch.save(
        ([(row.weights, row.measures["validation_figure"]) for row in levels.rows], mortal.trainings),
        folder / f"{name}-{rank}.pt",
    )


def same(levels: Results, rows: list[tuple[int, float]]) -> None:
    for row, (weights, figure) in zip(levels.rows, rows, strict=True):
        assert row.weights == weights
        assert row.measures["validation_figure"] == pytest.approx(figure, abs=1e-5)


def test_two_processes_find_what_one_does_and_resume_after_they_were_killed(tmp_path: Path) -> None:
    alone = find_ticket(network, train, evaluate=evaluate, levels=3, rate=0.4, rewind=5)
    with pytest.raises(multiprocessing.ProcessExitedException):
        in_two_processes(searching, tmp_path, "killed", 4)
    # One process has a training that the other has not: then neither takes it for done.
    one = sorted((tmp_path / "store" / "process-1" / "runs").rglob("*.safetensors"))
    assert len(one) == 3
    one[0].unlink()
    in_two_processes(searching, tmp_path, "resumed", 0)
    for rank in (0, 1):
        rows, trainings = torch.load(tmp_path / f"resumed-{rank}.pt")
        same(alone.levels, rows)
        assert trainings == 3
        ticket = Ticket.load(tmp_path / f"resumed-{rank}.safetensors")
        assert ticket.mask == alone.ticket.mask
        for name, tensor in alone.ticket.start.items():
            torch.testing.assert_close(ticket.start[name], tensor, rtol=1e-5, atol=1e-6)
