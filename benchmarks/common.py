"""Shared by the benchmarks: timing in turns, checks that the sides agree, results, a hand-written training loop."""

from __future__ import annotations

import datetime
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from tombola.engines.training_loop import Learner
from tombola.pruning.mask import Mask
from tombola.utils.workers import cores, processor

RESULTS = Path(__file__).parent / "results"
FIRST_STEPS = 5
"""Steps whose losses are compared."""
console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 120)


def machine() -> dict[str, Any]:
    """The hardware and software that the timings depend on."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": processor(),
        "cores": cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": _version("numba"),
        "triton": _version("triton"),
        "numpy": np.__version__,
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    """None if it is not installed: no GPU needs numba, and no CPU Triton."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    try:
        ran = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return ran.stdout.strip()


def take_turns(sides: Mapping[str, Callable[[], Any]], turns: int, warm_up: bool = True) -> dict[str, list[float]]:
    """The seconds of `turns` calls of each side. The sides alternate, so that other load and the temperature of the
    machine affect them all alike. With `warm_up` there is an additional first turn, which is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns + warm_up):
        for name, call in sides.items():
            began = time.perf_counter()
            call()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_per_call(call: Callable[[], Any], device: torch.device, calls: int = 10, turns: int = 5) -> float:
    """The median of `turns` means over `calls` calls."""

    def turn() -> None:
        for _ in range(calls):
            call()
        wait(device)

    return median(take_turns({"": turn}, turns)[""]) / calls


def median(seconds: list[float]) -> float:
    return statistics.median(seconds)


def write(name: str, result: Mapping[str, Any]) -> Path:
    """Write a result and the machine to `results/NAME.json`."""
    return write_to(RESULTS / f"{name}.json", result)


def write_to(path: Path, result: Mapping[str, Any]) -> Path:
    """Write a result and the machine to a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n", encoding="utf-8")
    return path


def check_first_losses(losses: Mapping[str, float], tolerance: float = 1e-3) -> None:
    """Exit unless the sides have the same summed losses, to rounding, in their first steps from the same weights.

    Later losses may differ more: once the examples are learnt, Adam magnifies rounding errors.
    """
    if max(losses.values()) - min(losses.values()) > tolerance * max(losses.values()):
        raise SystemExit(f"the sides disagree: summed losses of the first steps {dict(losses)}")


def check_accuracies(accuracies: Mapping[str, float]) -> None:
    """Exit unless the accuracies of the sides after training agree to 3 points."""
    if max(accuracies.values()) - min(accuracies.values()) > 0.03:
        raise SystemExit(f"the sides disagree: accuracies {dict(accuracies)}")


class ContinuedTraining:
    """Trains a learner on the same batches at each call. Iteration numbers, on which Adam depends, continue."""

    def __init__(self, learner: Learner, orders: Tensor) -> None:
        self.learner, self.orders = learner, orders
        self.iteration = 0

    def __call__(self, steps: int | None = None) -> None:
        """Train `steps` batches; all by default."""
        orders = self.orders[:, :steps]
        self.learner.train(orders, self.iteration)
        self.iteration += orders.shape[1]


class Loop:
    """A good hand-written loop: tensors in memory, Adam, masks multiplied after each step."""

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
        """One step for each batch; each is a row of indices."""
        for batch in batches:
            loss = functional.cross_entropy(self.network(x[batch]), y[batch])
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            with torch.no_grad():
                for weight, kept in self.masked:
                    weight.mul_(kept)
            self.losses += loss.detach()

    def take_losses(self) -> float:
        """The sum of the losses since the last call."""
        total = self.losses.item()
        self.losses.zero_()
        return total
