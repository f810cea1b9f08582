"""Trainings by the workers of a Dask cluster, which needs no adapter."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import tombola
from tests.support.result_files import result_files

distributed = pytest.importorskip("distributed", reason="Dask is not installed")


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        distributed.LocalCluster(**options, silence_logs=logging.CRITICAL) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor()


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def examples() -> tuple[Tensor, Tensor]:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


def train(network: nn.Module) -> None:
    x, y = examples()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        functional.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def evaluate(network: nn.Module) -> dict[str, float]:
    x, y = examples()
    return {"accuracy": (network(x).argmax(1) == y).float().mean().item()}


def test_own_functions_give_the_results_of_one_process(executor: Executor, tmp_path: Path) -> None:
    def search(folder: str, used: Executor | None) -> dict[str, bytes]:
        tombola.find_ticket(
            make,
            train,
            evaluate=evaluate,
            levels=1,
            replicates=2,
            executor=used,
            out=tmp_path / folder / "out",
            progress=False,
        )
        return result_files(tmp_path / folder / "out")

    assert search("dask", executor) == search("here", None)
