"""Which stacks of runs are trained by `FusedStep`: decided by their network, and by a trial on the device."""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn, optim

from tombola.engines.stacked.stack import Stack, recognise_stack
from tombola.engines.stacked.triton_support import triton_usable
from tombola.pruning.mask import State
from tombola.runs.run import Training
from tombola.utils.text import first_line

if TYPE_CHECKING:  # they need triton
    from tombola.engines.stacked.fused_step import FusedStep

log = logging.getLogger(__name__)


def make_fused_step(
    network: nn.Module,
    training: Training,
    parameters: State,
    pruned: Mapping[str, Tensor],
    optimizer: optim.Optimizer,
    device: torch.device,
) -> FusedStep | None:
    """The fused step of runs of `network`, or None if they cannot have one. `parameters`, and which of the weights of
    some are `pruned`, have the runs along the first axis."""
    stack = fusable_stack(network, training, pruned)
    if stack is None or not triton_usable(device):
        return None
    transposed = frozenset(layer.weight for layer in stack.layers if parameters[layer.weight].stride(1) == 1)
    any_rate = training.model_copy(update={"lr": 1.0})  # the trial has its own
    if not _passes_trial(stack, frozenset(pruned), transposed, any_rate, device):
        return None
    from tombola.engines.stacked.fused_step import FusedStep

    return FusedStep(stack, parameters, pruned, optimizer, training.batch_size, training.precision)


def fusable_stack(network: nn.Module, training: Training, masked: Collection[str]) -> Stack | None:
    """`network` as a stack of linear layers, if the kernels support it, its training, and its `masked` parameters."""
    stack = recognise_stack(network)
    if isinstance(stack, str) or stack.dropout or any(layer.dropout for layer in stack.layers):
        return None
    if training.precision == "bf16" or not {layer.weight for layer in stack.layers}.issuperset(masked):
        return None
    return stack


@functools.cache
def _passes_trial(
    stack: Stack, pruned: frozenset[str], transposed: frozenset[str], training: Training, device: torch.device
) -> bool:
    """Whether the fused step is right; if not, the reason is logged, once. The kernels are compiled here."""
    from tombola.engines.stacked.fusion_trial import trial_agrees

    try:
        reason = None if trial_agrees(stack, pruned, transposed, training, device) else "a trial gave wrong numbers"
    except torch.cuda.OutOfMemoryError:
        raise  # it is no property of the kernels
    except Exception as error:  # noqa: BLE001 - compilers, drivers and linkers fail in many ways
        reason = first_line(error)
    if reason:
        log.warning("training on %s is slower than it could be, without a fused step: %s", device, reason)
    return not reason
