"""Shared by the benchmarks: timing in turns, checks that the sides agree, results."""

from __future__ import annotations

import datetime
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

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
        "jax": _version("jax"),
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


def write_entry(name: str, entry: str, result: Mapping[str, Any]) -> Path:
    """Write a result and the machine as one entry of `results/NAME.json`, and keep the other entries."""
    path = RESULTS / f"{name}.json"
    entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return _write_json(path, entries | {entry: {"machine": machine(), **result}})


def write_to(path: Path, result: Mapping[str, Any]) -> Path:
    """Write a result and the machine to a JSON file."""
    return _write_json(path, {"machine": machine(), **result})


def _write_json(path: Path, content: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def check_first_losses(losses: Mapping[str, float], tolerance: float = 1e-3) -> None:
    """Exit unless the sides have the same summed losses, to rounding, in their first steps from the same weights.

    Later losses may differ more: once the examples are learnt, Adam magnifies rounding errors.
    """
    _check_losses(losses, tolerance, "the first steps")


def check_later_losses(losses: Mapping[str, float], tolerance: float = 0.05) -> None:
    """Exit unless the losses of the sides, summed over all later steps, agree to 5%."""
    _check_losses(losses, tolerance, "the later steps")


def _check_losses(losses: Mapping[str, float], tolerance: float, steps: str) -> None:
    most, least = max(losses.values()), min(losses.values())
    if not math.isfinite(sum(losses.values())) or most - least > tolerance * most:
        raise SystemExit(f"the sides disagree: summed losses of {steps} {dict(losses)}")


class Trainer(Protocol):
    """A side that trains: a `Learner`, or a loop by hand."""

    def train(self, orders: Tensor, first: int) -> None:
        """Train on batches: indices of training examples, int64 of shape (1, iterations, batch); `first` is the
        number of the first iteration."""

    def take_losses(self) -> list[float]:
        """The sum of the training losses since the last call."""


class ContinuedTraining:
    """Trains on the same batches at each call. Iteration numbers, on which Adam depends, continue."""

    def __init__(self, learner: Trainer, orders: Tensor) -> None:
        self.learner, self.orders = learner, orders
        self.iteration = 0

    def __call__(self, steps: int | None = None) -> None:
        """Train `steps` batches; all by default."""
        orders = self.orders[:, :steps]
        self.learner.train(orders, self.iteration)
        self.iteration += orders.shape[1]
