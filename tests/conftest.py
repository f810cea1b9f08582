"""Fixtures that many tests use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.recipes import tiny
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.run import Run


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
