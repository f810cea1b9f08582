"""Small real things to test with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tombola.experiments.experiment import Experiment
from tombola.experiments.recipe import Recipe, parse_recipe
from tombola.pruning.mask import Mask
from tombola.runs.outcome import Measures, Outcome
from tombola.runs.run import Run

TINY: dict[str, Any] = {
    "name": "tiny",
    "replicates": 2,
    "data": {"name": "digits", "validation": 200},
    "model": {"name": "mlp", "widths": [20, 10]},
    "training": {
        "optimizer": "adam",
        "lr": 5e-3,
        "batch_size": 40,
        "length": "60it",
        "evaluate_every": "10it",
    },
    "search": {"levels": 3, "rate": 0.4, "output_rate": 0.2},
    "controls": {"reinit": 2},
}


def tiny(**changes: Any) -> Recipe:
    """A recipe that runs in a second; `section__key=value` changes a value."""
    table = {name: dict(part) if isinstance(part, dict) else part for name, part in TINY.items()}
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            table.setdefault(section, {})[key] = value
        else:
            table[section] = value
    return parse_recipe(table, source="tiny")


@pytest.fixture
def dense() -> Run:
    """The dense run of the tiny recipe."""
    return Experiment(tiny()).dense(0)


def random_mask(run: Run, density: float, seed: int = 0) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    return Mask({name: torch.rand(kept.shape, generator=generator) < density for name, kept in run.mask.items()})


def outcome_of(run: Run, **measures: Any) -> Outcome:
    """An outcome without a training: random weights, and whatever figures are wanted."""
    generator = torch.Generator().manual_seed(run.seed % 1000)
    final = {n: torch.randn(kept.shape, generator=generator) * kept for n, kept in run.mask.items()}
    figures: dict[str, Any] = {
        "diverged": False,
        "iterations": 100,
        "stop_iteration": 50,
        "validation_loss_at_stop": 0.1,
        "validation_accuracy_at_stop": 0.9,
        "train_accuracy_at_stop": 0.95,
        "test_accuracy_at_stop": 0.9,
        "train_accuracy": 1.0,
        "test_accuracy": 0.91,
    }
    curves = {
        "iteration": torch.tensor([50, 100]),
        "validation_loss": torch.tensor([0.1, 0.2], dtype=torch.float64),
        "validation_accuracy": torch.tensor([0.9, 0.8], dtype=torch.float64),
    }
    return Outcome(final, curves, Measures(**figures | measures), "none", 0.0)


@pytest.fixture(autouse=True)
def _speeds(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements made by tests are nobody else's."""
    monkeypatch.setenv("TOMBOLA_SPEEDS", str(tmp_path_factory.getbasetemp() / "speeds.json"))


@pytest.fixture
def store_folder(tmp_path: Path) -> Path:
    return tmp_path / "store"
