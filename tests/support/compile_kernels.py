"""A program that compiles every kernel of a fused step, and of an optimizer's, for GPUs that need not be there.

It makes the steps on the CPU, with compilations in place of launches. Its arguments are compute capabilities, such as
90; it writes the names and sizes of the kernels. The interpreter finds no errors of types, or of too much memory.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

import torch
import triton
from torch import nn
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from tombola.engines import optimizers
from tombola.engines.stacked.fused_step import FusedStep
from tombola.engines.stacked.masked_optimizer import MaskedOptimizer
from tombola.engines.stacked.stack import recognise_stack
from tombola.runs.run import Training
from tombola.utils.duration import Duration

compiled: list[str] = []


class Driver:
    """As much of a driver as compiling needs."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return self.capability  # compiled kernels are kept by device

    def get_current_stream(self, _: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)


def compile_instead(kernel: Any, grid: Any) -> Any:
    def launch(*arguments: Any, **options: Any) -> None:
        binary = kernel.warmup(*arguments, grid=grid, **options).asm["cubin"]
        compiled.append(f"{kernel.__name__} {len(binary)}")

    return launch


def steps(**options: Any) -> None:
    network = nn.Sequential(nn.Linear(70, 40), nn.ReLU(), nn.Linear(40, 10))
    training = Training(**{"lr": 0.1, "batch_size": 60, "length": Duration(iterations=9)} | options)
    parameters = {n: nn.Parameter(torch.stack([p.detach()] * 2)) for n, p in network.named_parameters()}
    optimizer = optimizers.build_optimizer(parameters, (), training, capturable=True)
    pruned = {"0.weight": torch.ones(2, 40, 70, dtype=torch.bool)}
    step = FusedStep(recognise_stack(network), parameters, pruned, optimizer, 60, training.precision)
    step(torch.zeros(99, 70), *torch.zeros(2, 2, 60, dtype=torch.int64), torch.zeros(2))
    parameters["0.weight"].grad = torch.zeros(2, 40, 70)
    MaskedOptimizer(optimizer, parameters, pruned, kernels=True).step()


JITFunction.__getitem__ = compile_instead
for capability in map(int, sys.argv[1:]):
    triton.runtime.driver.set_active(Driver(capability))
    steps(optimizer="adam", precision="tf32", schedule="cosine")
    steps(optimizer="sgd", momentum=0.9, nesterov=True, weight_decay=0.1)
sys.stdout.write("\n".join(compiled))
