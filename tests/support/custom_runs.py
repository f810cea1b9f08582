"""Single trainings with the user's own function."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tombola.engines.custom.engine import CustomEngine, CustomRun
from tombola.engines.custom.model import CustomModel
from tombola.pruning.mask import Mask
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.initial_state import StateLoader, no_stored_states
from tombola.runs.outcome import Outcome

NO_CHECKPOINT = Checkpoint(Path("nowhere"), every=math.inf)


class Noisy(nn.Module):
    """With dropout, batch norm, a layer that stays in evaluation mode, and a buffer that forward passes change."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.output = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 2)
        self.norm, self.frozen = nn.BatchNorm1d(12), nn.BatchNorm1d(12).eval()
        self.dropout = nn.Dropout(0.3)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        hidden = self.dropout(self.norm(self.first(x)).relu())
        logits: torch.Tensor = self.output(self.frozen(self.second(hidden)).relu())
        return logits


def custom_run(model: Any = Noisy, density: float = 0.5, **changes: Any) -> CustomRun:
    """A run of this model with a random mask."""
    source = CustomModel(model)
    network = source.initial_network(source.start(1))
    generator = torch.Generator().manual_seed(2)
    full = Mask.full(network)
    mask = Mask({name: torch.rand(kept.shape, generator=generator) < density for name, kept in full.items()})
    return CustomRun(start=source.start(1), mask=mask, seed=3, procedure="p").model_copy(update=changes)


def trained(
    run: CustomRun,
    train: Callable[..., Any],
    evaluate: Any = None,
    test: Any = None,
    model: Any = Noisy,
    load_state: StateLoader = no_stored_states,
) -> Outcome:
    """The outcome of the run."""
    (outcome,) = CustomEngine(CustomModel(model), train, evaluate, test).train([run], NO_CHECKPOINT, load_state)
    return outcome


def iterations(outcome: Outcome) -> list[int]:
    """Those at which it was evaluated."""
    values: list[int] = outcome.curves["iteration"].tolist()
    return values
