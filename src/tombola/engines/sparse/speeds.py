"""Which layers are faster sparse: measured once, and stored for this machine."""

from __future__ import annotations

import copy
import functools
import json
import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numba
import platformdirs
import torch
from llvmlite import binding
from pydantic import TypeAdapter
from torch import Tensor, nn

from tombola.engines.sparse.modules import make_sparse
from tombola.kernels.source_hash import kernel_hash
from tombola.utils.errors import InputError
from tombola.utils.files import atomic_write, file_lock
from tombola.utils.text import first_line

log = logging.getLogger(__name__)

DENSITY_STEP = 0.8
"""Densities are rounded to a power of it before they are measured."""

REPEATS = 5


@dataclass(frozen=True)
class Speed:
    """Milliseconds of a training step of one layer on one thread: forward, backward, update."""

    machine: str
    layer: str
    """Its class, options and input shape."""
    density: float
    sparse: float
    dense: float


@dataclass(frozen=True)
class Speeds:
    """Measurements stored in a file, which processes may share: the first that needs one makes it, others wait."""

    path: Path

    @classmethod
    def default(cls) -> Speeds:
        """Stored in the user's cache folder, or in the file that `TOMBOLA_SPEEDS` names."""
        place = os.environ.get("TOMBOLA_SPEEDS")
        return cls(Path(place) if place else Path(platformdirs.user_cache_dir("tombola")) / "speeds.json")

    def sparse_is_faster(self, layer: nn.Linear | nn.Conv2d, inputs: tuple[int, ...], density: float) -> bool:
        """Whether a training step of `layer` for inputs of this shape is faster sparse, at this density."""
        if density > DENSITY_STEP**0.5:
            return False
        power = math.inf if density == 0 else round(math.log(density) / math.log(DENSITY_STEP))
        density = DENSITY_STEP ** min(power, 40)
        name = f"{layer} on {'x'.join(map(str, inputs))}"
        known = self._read().get(machine(), {}).get(name, {})
        at = f"{density:.4f}"
        if not {"dense", at} <= known.keys():
            known = self._measure(layer, name, inputs, density, at)
        return bool(known[at] < known["dense"])

    def all(self) -> list[Speed]:
        """All measurements."""
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
        except (OSError, ValueError):  # if the file is damaged, layers are measured again
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
        except (OSError, InputError) as error:
            log.warning("cannot store the speeds of layers in %s: %s", self.path, first_line(error))
            _complete(known, layer, inputs, density, at)
        return known


_FILE = TypeAdapter(dict[str, dict[str, dict[str, float]]])


def _complete(
    known: dict[str, float], layer: nn.Linear | nn.Conv2d, inputs: tuple[int, ...], density: float, at: str
) -> None:
    """Add the missing measurements to `known`."""
    if "dense" not in known:
        known["dense"] = step_time(_copy(layer), inputs)
    if at not in known:
        kept = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(0)) < density
        known[at] = step_time(make_sparse(_copy(layer), kept), inputs)


def machine() -> str:
    """What speeds depend on: the processor and the versions."""
    return f"{binding.get_host_cpu_name()}, {versions()}"


@functools.cache
def versions() -> str:
    """The versions that speeds and the bits of results depend on: of the engine's kernels, numba and torch."""
    modules = ("kernels.training.loop", "kernels.training.layer", "kernels.sparsity_pattern", "kernels.image_slot")
    layouts = ("engines.sparse.network_layout", "engines.sparse.product_tables")
    kernels = kernel_hash(*(f"tombola.{module}" for module in (*modules, *layouts)))
    return f"kernels {kernels}, numba {numba.__version__}, torch {torch.__version__}"


def step_time(layer: nn.Module, inputs: tuple[int, ...]) -> float:
    """Milliseconds of a training step of `layer`: the median of `REPEATS`, after one that is not counted."""
    x = torch.ones(inputs, requires_grad=True)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.0, fused=True)

    times = []
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        out: Tensor = layer(x)
        optimizer.zero_grad()
        out.backward(torch.ones_like(out))  # type: ignore[no-untyped-call]
        optimizer.step()
        times.append(time.perf_counter() - began)
    return sorted(times[1:])[REPEATS // 2] * 1e3


def _copy(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """A copy of `layer` with constant weights, not denormal, because processors are slow with denormal numbers."""
    made = copy.deepcopy(layer)
    for parameter in made.parameters():
        nn.init.constant_(parameter, 0.01)
    return made
