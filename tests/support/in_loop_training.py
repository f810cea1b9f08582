"""A training loop with a search in it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.optim import lr_scheduler

from tombola.integrations.in_loop_search import InLoopSearch
from tombola.integrations.search_config import SearchConfig
from tombola.utils.files import read_tensors, write_tensors

BASE: dict[str, Any] = {"levels": 3, "every": "12it", "rewind": "3it", "rate": 0.5}


class Training:
    """A small network, its optimizer and schedulers, and a training loop with a search in it."""

    def __init__(self, seed: int = 0, steps_per_epoch: int | None = 4, **options: Any) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = nn.Sequential(
                nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
            )
        self.optimizer = torch.optim.Adam(self.network.parameters(), 0.05, weight_decay=1e-2)
        self.schedulers = [
            lr_scheduler.OneCycleLR(self.optimizer, 0.1, total_steps=13),
            lr_scheduler.MultiStepLR(self.optimizer, [5, 5, 8]),
        ]
        config = SearchConfig(**BASE | options)
        self.search = InLoopSearch(
            config, self.network, [self.optimizer], self.schedulers, steps_per_epoch, self.metrics
        )
        self.seen = 0
        self.loss: float | None = None

    def metrics(self) -> dict[str, float]:
        return {} if self.loss is None else {"loss": self.loss}

    def step(self) -> None:
        self.search.before_step()
        generator = torch.Generator().manual_seed(self.seen)
        x = torch.randn(20, 6, generator=generator)
        loss = functional.cross_entropy(self.network(x), x[:, :3].argmax(1))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for scheduler in self.schedulers:
            scheduler.step()
        self.seen, self.loss = self.seen + 1, loss.item()
        self.search.after_step()

    def run(self, until: Callable[[Training], bool] = lambda training: training.search.complete) -> Training:
        while not until(self):
            self.step()
        return self

    def checkpoint(self, path: Path) -> dict[str, Any]:
        tensors, about = self.search.state()
        write_tensors(path, tensors, about)
        file = io.BytesIO()
        parts = [self.network, self.optimizer, *self.schedulers]
        torch.save([part.state_dict() for part in parts], file)
        return {"file": file.getvalue(), "seen": self.seen, "search": path}

    def resume(self, checkpoint: dict[str, Any]) -> Training:
        parts: list[Any] = [self.network, self.optimizer, *self.schedulers]
        states = torch.load(io.BytesIO(checkpoint["file"]), weights_only=False)
        for part, state in zip(parts, states, strict=True):
            part.load_state_dict(state)
        self.seen = checkpoint["seen"]
        self.search.load(*read_tensors(checkpoint["search"]))
        return self
