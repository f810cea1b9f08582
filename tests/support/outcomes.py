"""Random masks, and outcomes without a training."""

from __future__ import annotations

from typing import Any

import torch

from tombola.pruning.mask import Mask
from tombola.runs.outcome import Measures, Outcome
from tombola.runs.run import Run


def random_mask(run: Run, density: float, seed: int = 0) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    return Mask({name: torch.rand(kept.shape, generator=generator) < density for name, kept in run.mask.items()})


def outcome_of(run: Run, **measures: Any) -> Outcome:
    """An outcome without a training: random weights, and the given measures."""
    generator = torch.Generator().manual_seed(run.seed % 1000)
    final = {n: torch.randn(kept.shape, generator=generator) * kept for n, kept in run.mask.items()}
    defaults: dict[str, Any] = {
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
    return Outcome(final, curves, Measures(**defaults | measures), "none", 0.0)
