"""What tests of engines share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.conftest import tiny
from tombola.engines.eager import Eager
from tombola.experiments.experiment import Experiment
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.runs.store import Checkpoint


class Convolutional(nn.Module):
    """A module of the user's own: convolution, batch norm, dropout."""

    def __init__(self, channels: int = 4, dropout: float = 0.3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 3, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(channels * 36, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.dropout(functional.relu(self.norm(self.conv(x.unsqueeze(1))))).flatten(1))


CONVOLUTIONAL = {"name": f"{__name__}:Convolutional"}


def train(run: Run, path: Path = Path("nowhere")) -> Outcome:
    """What the eager engine makes of a run."""
    (outcome,) = Eager().train([run], Checkpoint(path))
    return outcome


def dense_run(**changes: Any) -> Run:
    return Experiment(tiny(**changes)).dense(0)


def same_bits(a: Outcome, b: Outcome) -> bool:
    return (
        a.measures == b.measures
        and all(torch.equal(a.final[name], b.final[name]) for name in a.final)
        and all(torch.equal(a.curves[name], b.curves[name]) for name in a.curves)
    )


class Interrupted(Exception):
    pass


class Interrupting(Checkpoint):
    """Saves at every look, and stops the training after a few."""

    looks = 3

    def due(self) -> bool:
        return True

    def save(self, tensors: Any, about: Any, engine: str) -> None:
        super().save(tensors, about, engine)
        self.looks -= 1
        if self.looks == 0:
            raise Interrupted
