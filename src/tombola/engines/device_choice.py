"""Device `auto`: CUDA where there is a GPU and an experiment is likely to be faster on it, otherwise the CPU.

The constants are by arithmetic and from measurements on a CPU; not measured on a GPU. They need not be exact: where
both estimates are close, either device will do.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from tombola.engines import AUTO
from tombola.engines.determinism import fix_cublas_workspace
from tombola.engines.stacked.stackability import why_not_these_data, why_not_this_training
from tombola.runs.run import Precision, Run
from tombola.utils.gpus import visible_gpus
from tombola.utils.random_state import preserve_rng_state
from tombola.utils.text import first_line, plural, rough_time
from tombola.utils.workers import cores
from tombola.zoo.models import build

log = logging.getLogger(__name__)

CUDA_START = 10.0
"""Seconds until a GPU trains: CUDA and its libraries, trials, graphs."""
STACKED_STEP = 0.1e-3
"""Seconds of an iteration of a stack at least: its kernels are launched by a CUDA graph."""
EAGER_STEP = 0.45e-3
"""The same for a single network, whose kernels Python launches."""
CUDA_SPEED: dict[Precision, float] = {"fp32": 35e12, "tf32": 150e12, "bf16": 150e12}
"""Sustained floating point operations a second, by precision."""
CPU_STEP = 0.06e-3
"""Seconds of an iteration on a core at least."""
CPU_SPEED = 60e9
"""Floating point operations a second on one core, counting kept weights."""


@dataclass(frozen=True)
class Demand:
    """The trainings that an experiment asks for."""

    at_once: Sequence[int]
    """How many can be trained at the same time, one group after another: each level of all searches, then the
    controls."""
    iterations: int
    """Of one training."""
    multiply_adds: int
    """Of one iteration of the dense network."""
    density: float
    """The fraction of weights left, on average over the trainings."""
    stackable: bool
    """Whether networks of this kind can probably be stacked."""
    precision: Precision = "fp32"

    @classmethod
    def of(cls, run: Run, at_once: Sequence[int], density: float) -> Demand:
        """Of trainings like `run`, that of the dense network."""
        network = build(run.start)
        each = count_multiply_adds(network, run.start.network.inputs)
        stackable = not any(isinstance(module, nn.RNNBase) for module in network.modules())
        stackable = stackable and not (why_not_this_training(run.training) or why_not_these_data(run.data))
        return cls(at_once, run.last, run.training.batch_size * each, density, stackable, run.training.precision)


def choose_device(device: str, engine: str, workers: int | None, demand: Callable[[], Demand]) -> str:
    """`device`, or what `auto` is for this engine, number of workers (None: as many as the device suits) and demand;
    the choice is logged in one line if there is a GPU."""
    if device != AUTO:
        return device
    gpus = len(visible_gpus())
    if engine == "sparse" or not gpus:
        return "cpu"
    chosen, why = choose(demand(), engine, workers or cores(), min(workers or gpus, gpus))
    if chosen == "cuda" and (reason := _why_not_usable()):
        log.warning("device auto: cpu; the GPU cannot be used: %s", reason)
        return "cpu"
    log.info("device auto: %s", why)
    return chosen


def _why_not_usable() -> str | None:
    """Why nothing can be computed on the first GPU: its driver may be too old for this torch, or the GPU itself."""
    fix_cublas_workspace()  # before CUDA is used
    try:
        torch.zeros(1, device="cuda").add_(1)
        torch.cuda.synchronize()
    except Exception as error:  # noqa: BLE001 - drivers and torch fail in many ways
        return first_line(error)
    return None


def choose(demand: Demand, engine: str, cpu_cores: int, gpus: int) -> tuple[Literal["cpu", "cuda"], str]:
    """The device with the shorter estimate, and both estimates in words."""
    on_cpu, on_cuda = cpu_seconds(demand, engine, cpu_cores), cuda_seconds(demand, engine, gpus)
    cpu, cuda = (f"{rough_time(seconds)} on" for seconds in (on_cpu, on_cuda))
    chosen: Literal["cpu", "cuda"] = "cuda" if on_cuda < on_cpu else "cpu"
    return chosen, f"{chosen}; estimated {cpu} {plural(cpu_cores, 'core')}, {cuda} {plural(gpus, 'GPU')}"


def cuda_seconds(demand: Demand, engine: str, gpus: int) -> float:
    """The estimated duration on `gpus` GPUs."""
    arithmetic = 2 * demand.multiply_adds / CUDA_SPEED[demand.precision]

    def step(runs: int) -> float:
        if engine != "eager" and demand.stackable:
            return max(STACKED_STEP, runs * arithmetic)
        return runs * max(EAGER_STEP, arithmetic)

    return CUDA_START + demand.iterations * sum(step(-(-runs // gpus)) for runs in demand.at_once)


def cpu_seconds(demand: Demand, engine: str, cpu_cores: int) -> float:
    """The estimated duration on a CPU; the sparse engine, which is the one of `auto`, computes with the kept weights,
    in float32."""
    density = demand.density if engine == AUTO and demand.precision != "bf16" else 1.0
    step = max(CPU_STEP, 2 * demand.multiply_adds * density / CPU_SPEED)
    return demand.iterations * step * sum(-(-runs // cpu_cores) for runs in demand.at_once)


def count_multiply_adds(network: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-adds of an iteration for one example of this shape, forward and backward; at least three for each
    weight, because those of recurrent layers are not counted, nor those of a network that raises an error."""
    from torch.utils.flop_counter import FlopCounterMode  # its import takes a second

    batch = 2  # batch normalisation needs several
    counter = FlopCounterMode(display=False)
    with preserve_rng_state(), contextlib.suppress(Exception), counter:  # training will say what is wrong
        network(torch.zeros(batch, *shape)).sum().backward()
    weights = sum(parameter.numel() for parameter in network.parameters())
    return max(int(counter.get_total_flops()) // (2 * batch), 3 * weights)
