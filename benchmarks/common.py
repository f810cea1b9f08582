"""What the benchmarks share: the machine, taking turns, results, the loop that a user would write by hand."""

from __future__ import annotations

import datetime
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from tombola.pruning.mask import Mask
from tombola.utils.workers import cores, processor

RESULTS = Path(__file__).parent / "results"
console = Console(soft_wrap=True)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": processor(),
        "cores": cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "numpy": np.__version__,
        "commit": _commit(),
    }


def _commit() -> str | None:
    try:
        ran = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return ran.stdout.strip()


def take_turns(sides: Mapping[str, Callable[[], Any]], turns: int, warm_up: bool = True) -> dict[str, list[float]]:
    """Seconds that each side takes, `turns` times each. They take turns, so that what else the machine does, and how
    warm it is, falls on all of them alike. With `warm_up` there is one more turn, the first, that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns + warm_up):
        for name, call in sides.items():
            began = time.perf_counter()
            call()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def median(seconds: list[float]) -> float:
    return statistics.median(seconds)


def write(name: str, result: Mapping[str, Any]) -> Path:
    """Keep a result, with the machine, as `results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n", encoding="utf-8")
    return path


def agree(expected: float, *others: float) -> None:
    """The same steps give the same losses."""
    for other in others:
        if abs(other - expected) > 0.02 * expected:
            raise SystemExit(f"the sides disagree: summed losses {expected} and {other}")


class Loop:
    """The loop that a good user writes: tensors in memory, Adam, masks multiplied after each step."""

    def __init__(self, network: nn.Module, mask: Mask, lr: float, fused: bool) -> None:
        self.network = network
        self.optimizer = torch.optim.Adam(network.parameters(), lr=lr, fused=fused)
        parameters = dict(network.named_parameters())
        self.masked = [(parameters[name], kept.float()) for name, kept in mask.items() if not kept.all()]
        self.losses = torch.zeros(())
        with torch.no_grad():
            for weight, kept in self.masked:
                weight.mul_(kept)

    def train(self, x: Tensor, y: Tensor, batches: Tensor) -> None:
        """One step for each batch."""
        for batch in batches:
            loss = functional.cross_entropy(self.network(x[batch]), y[batch])
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            with torch.no_grad():
                for weight, kept in self.masked:
                    weight.mul_(kept)
            self.losses += loss.detach()
