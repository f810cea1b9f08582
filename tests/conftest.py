"""Fixtures that many tests use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.chromium import CHROMIUM, QUIET
from tests.support.cuda_device import CudaDevice, cuda_device
from tests.support.ray_nodes import _cluster, connected, disconnected, ray_nodes  # noqa: F401 - fixtures
from tests.support.recipes import tiny
from tombola.engines.stacked.cuda_graph import _side_stream
from tombola.engines.stacked.stackability import _MOST_FREE
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.integrations.ray_cluster import silence_ray
from tombola.runs.run import Run


def pytest_configure() -> None:
    """Without a GPU, Triton's kernels are interpreted; triton reads this when it is imported, once for a process.
    Where it is set, engines do not use kernels by themselves. The other variable is for tests that use CUDA before an
    engine sets it. Ray, too, reads its own when it is imported. pytest-xdist sets the width of the terminal, which
    breaks lines.
    """
    os.environ.pop("COLUMNS", None)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")
    silence_ray()


@pytest.fixture
def dense() -> Run:
    """The dense run of the tiny recipe."""
    return RecipeExperiment(tiny()).dense(0)


@pytest.fixture(autouse=True)
def _speeds(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests have their own file of measured speeds."""
    monkeypatch.setenv("TOMBOLA_SPEEDS", str(tmp_path_factory.getbasetemp() / "speeds.json"))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Undo what an earlier test set: two processes with two threads each on two cores are twenty times as slow."""
    torch.set_num_threads(1)


@pytest.fixture
def store_folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def cuda() -> Iterator[CudaDevice]:
    """A CUDA device: that of this machine, or a pretended one. `pytest -m cuda` selects the tests that use it."""
    with cuda_device() as device:
        yield device


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium; one for a process, since Playwright cannot be started twice."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(
            executable_path=CHROMIUM, args=[f"--{option}" for option in (*QUIET, "no-first-run")]
        )
        yield launched
        launched.close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "cuda" in getattr(item, "fixturenames", ()):
            item.add_marker("cuda")


@pytest.fixture(autouse=True)
def _forget_devices() -> Iterator[None]:
    """What a process remembers of its GPUs; those of a test are gone after it."""
    yield
    _side_stream.cache_clear()
    _MOST_FREE.clear()
