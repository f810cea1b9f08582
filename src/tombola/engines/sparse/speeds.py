"""Speeds: which layers are faster sparse, found out by a short measurement and remembered for this machine."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import platformdirs
import torch
from llvmlite import binding
from pydantic import TypeAdapter
from torch import Tensor, nn

from tombola.engines.sparse.compiled import KERNELS
from tombola.engines.sparse.modules import SparseTrainingLayer
from tombola.utils.files import atomic_write
from tombola.utils.locks import file_lock

log = logging.getLogger(__name__)

STEP = 0.8
"""Densities are measured at its powers; each stands for those around it."""

REPEATS = 5
"""Training steps that a measurement takes the median of, after one that does not count."""


@dataclass(frozen=True)
class Speed:
    """How long a training step of one layer takes, in milliseconds on one thread: forward, backward, update."""

    machine: str
    layer: str
    """Its kind, sizes and inputs."""
    density: float
    sparse: float
    dense: float


@dataclass(frozen=True)
class Speeds:
    """Measurements kept in a file, which processes may share. The first to need one makes it; the others wait."""

    path: Path

    @classmethod
    def default(cls) -> Speeds:
        """In the user's cache folder, or where `TOMBOLA_SPEEDS` says."""
        place = os.environ.get("TOMBOLA_SPEEDS")
        return cls(Path(place) if place else Path(platformdirs.user_cache_dir("tombola")) / "speeds.json")

    def sparse_is_faster(self, layer: nn.Linear | nn.Conv2d, inputs: tuple[int, ...], density: float) -> bool:
        """Whether a training step of `layer` on inputs of that shape is faster with only `density` of its weights."""
        if density > STEP**0.5:
            return False
        power = math.inf if density == 0 else round(math.log(density) / math.log(STEP))
        density = STEP ** min(power, 40)
        name = f"{layer} on {'x'.join(map(str, inputs))}"
        known = self._read().get(machine(), {}).get(name, {})
        at = f"{density:.4f}"
        if not {"dense", at} <= known.keys():
            known = self._measure(layer, name, inputs, density, at)
        return bool(known[at] < known["dense"])

    def all(self) -> list[Speed]:
        """Everything measured so far."""
        return [
            Speed(where, name, float(at), sparse, known["dense"])
            for where, layers in self._read().items()
            for name, known in layers.items()
            for at, sparse in sorted(known.items(), reverse=True)
            if at != "dense"
        ]

    def _read(self) -> dict[str, dict[str, dict[str, float]]]:
        try:
            return _FILE.validate_json(self.path.read_bytes())
        except (OSError, ValueError):  # a damaged file is as good as none: it can be measured again
            return {}

    def _measure(
        self, layer: nn.Linear | nn.Conv2d, name: str, inputs: tuple[int, ...], density: float, at: str
    ) -> dict[str, float]:
        known: dict[str, float] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(self.path.with_suffix(".lock")):
                everything = self._read()
                known = everything.setdefault(machine(), {}).setdefault(name, {})
                _complete(known, layer, inputs, density, at)
                with atomic_write(self.path) as temporary:
                    temporary.write_text(json.dumps(everything, indent=1), encoding="utf-8")
        except OSError as error:
            log.warning("speeds of layers cannot be kept in %s: %s", self.path, error.strerror or error)
            _complete(known, layer, inputs, density, at)
        return known


_FILE = TypeAdapter(dict[str, dict[str, dict[str, float]]])


def _complete(
    known: dict[str, float], layer: nn.Linear | nn.Conv2d, inputs: tuple[int, ...], density: float, at: str
) -> None:
    """Measure what is not known yet."""
    if "dense" not in known:
        known["dense"] = step_time(_fresh(layer), inputs)
    if at not in known:
        kept = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(0)) < density
        known[at] = step_time(SparseTrainingLayer(_fresh(layer), kept), inputs)


def machine() -> str:
    """What speeds depend on: the processor and the versions of what computes."""
    versions = f"kernels {KERNELS}, numba {numba.__version__}, torch {torch.__version__}"
    return f"{binding.get_host_cpu_name()}, {versions}"


def step_time(layer: nn.Module, inputs: tuple[int, ...]) -> float:
    """Milliseconds that a training step of `layer` takes; the median of several."""
    x = torch.ones(inputs, requires_grad=True)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.0, fused=True)

    def step() -> None:
        out: Tensor = layer(x)
        optimizer.zero_grad()
        out.backward(torch.ones_like(out))  # type: ignore[no-untyped-call]
        optimizer.step()

    step()
    return sorted(_timed(step) for _ in range(REPEATS))[REPEATS // 2]


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


def _fresh(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """A copy of `layer` whose weights are no matter, and far from the tiny numbers that processors are slow with."""
    made = copy.deepcopy(layer)
    for parameter in made.parameters():
        nn.init.constant_(parameter, 0.01)
    return made
