"""Which networks train as a whole in compiled loops."""

from __future__ import annotations

import functools
import itertools
import math
import random

import numpy as np
import torch
from torch import Tensor, nn

from tombola.engines.sparse.compiled_trial import compiled_trial, loss_gradient
from tombola.engines.sparse.network_layout import STATISTICS, entry
from tombola.engines.sparse.trial import run_trial
from tombola.kernels.plans.plan import UnsupportedNetwork
from tombola.kernels.plans.steps import TracingError, graph_of
from tombola.kernels.plans.training_plan import BatchNorm, LayerProduct, TrainingPlan
from tombola.kernels.plans.training_planner import training_plan
from tombola.kernels.vectors import LANES
from tombola.pruning.mask import Mask
from tombola.runs.run import Run
from tombola.utils.module_hooks import has_hooks
from tombola.utils.network_copy import copy_network
from tombola.utils.random_state import preserve_rng_state, seeded
from tombola.utils.text import first_line

MAX_BYTES = 2**32
"""Of the activations and gradients of a batch, at most."""
EXAMPLES = LANES + 1
"""In a batch that a plan is tried on: two groups, of which one is not full."""
DENSITIES = (1.0, 0.5)
"""Of the weights in the trials of a plan: some products are dense, others sparse."""
_TENSORS = {LayerProduct: ("weight", "bias"), BatchNorm: ("weight", "bias", *STATISTICS, "num_batches_tracked")}
"""The tensors in the `state_dict` of an operation's layer, at most."""
TRIALS = 3
"""Batches for each density, at most: rounding may turn a ReLU on or off, which changes gradients, so one has to
agree. A wrong rule or table changes all of them."""


def compiled_plan(network: nn.Module, inputs: tuple[int, ...]) -> TrainingPlan | str:
    """The training plan of `network` for examples of shape `inputs`, or the reason why it cannot be trained as a
    whole. The plan was tried: it gives the outputs and gradients of the network, up to rounding."""
    for name, module in network.named_modules():
        if has_hooks(module):
            return f"{name or 'the network'} has hooks"
    for name, parameter in network.named_parameters():
        if parameter.dtype != torch.float32:
            return f"{name} is of {parameter.dtype}"
        if not parameter.requires_grad:
            return f"{name} is frozen"
    try:
        plan = training_plan(graph_of(network, torch.ones(EXAMPLES, *inputs)))
        known = {entry(op.name, name) for op in plan.operations for name in _TENSORS.get(type(op), ())}
        for name in [*network.state_dict(), *dict(network.named_buffers())]:
            if name not in known:
                return f"{name} is not of a layer that the kernels train"
        if reason := _why_impure(network, inputs):
            return reason
        for density in DENSITIES:
            reasons = (_why_different(network, plan, density, seed, inputs) for seed in range(TRIALS))
            found = list(itertools.takewhile(lambda reason: reason is not None, reasons))
            if len(found) == TRIALS:
                return f"as a compiled loop, {found[-1]}"
    except (UnsupportedNetwork, TracingError) as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything
        return f"the network cannot be tried: {first_line(error)}"
    return plan


def why_not_this_run(plan: TrainingPlan, run: Run) -> str | None:
    """Why the compiled loops cannot train `run`, whose network has this plan; None if they can."""
    if options := [name for name in ("label_smoothing", "mixup", "ema", "clip_norm") if getattr(run.training, name)]:
        return f"compiled loops do not take {', '.join(options)}"
    if run.data.stream:
        return "compiled loops need all examples in memory"
    if run.data.resized_crop is not None:
        return "compiled loops do not take resized_crop"
    products = {op.name for op in plan.operations if isinstance(op, LayerProduct)}
    for name in run.mask:
        layer, _, last = name.rpartition(".")
        if last != "weight" or layer not in products:
            return f"{name} can be pruned, which is not the weight of a layer"
    batch = run.training.batch_size
    for op in plan.operations:
        if isinstance(op, BatchNorm) and batch * math.prod(op.source.shape[1:]) == 1:
            return f"{op.name} normalises single numbers"
    numbers = sum(math.prod(op.out.shape) for op in plan.operations)
    if 8 * numbers * batch > MAX_BYTES:
        return "its activations need too much memory"
    return None


def _why_different(
    network: nn.Module, plan: TrainingPlan, density: float, seed: int, inputs: tuple[int, ...]
) -> str | None:
    """How the outputs or gradients of a plan differ from those of its network, both without dropout and with a random
    mask, for random examples."""
    plain = _without_dropout(network)
    with preserve_rng_state(), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        examples = torch.randn(EXAMPLES, *inputs)
        # A branch whose scale is zero at first, such as the last batch norm of a residual block, has no gradients.
        for parameter in plain.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter) / math.sqrt(max(1, parameter[0].numel())))
        for buffer in plain.buffers():
            if buffer.is_floating_point():
                buffer.add_(torch.rand_like(buffer))
        mask = Mask({name: _kept(weight, density) for name, weight in _weights(plain, plan).items()})
        mask.apply_(plain)
    state = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    labels = torch.arange(EXAMPLES) % plan.logits.shape[0]
    expected = run_trial(plain, examples, functools.partial(loss_gradient, labels=labels))
    gradients = {name: value * mask[name] if name in mask else value for name, value in expected.gradients.items()}
    return compiled_trial(plan, state, mask, examples, labels).difference(expected.outputs, gradients)


def _weights(network: nn.Module, plan: TrainingPlan) -> dict[str, Tensor]:
    """The weights of all products."""
    parameters = dict(network.named_parameters())
    names = [entry(operation.name, "weight") for operation in plan.operations if isinstance(operation, LayerProduct)]
    return {name: parameters[name] for name in names}


def _kept(weight: Tensor, density: float) -> Tensor:
    """A random mask, with weights in every row: a channel without any is constant, and batch norm of it is noise."""
    kept = torch.rand_like(weight) < density
    kept[~kept.flatten(1).any(1)] = True
    return kept


def _why_impure(network: nn.Module, inputs: tuple[int, ...]) -> str | None:
    """Why one step says nothing about the next: the network draws random numbers by itself, rarely perhaps, or counts
    its calls. None if it does neither."""
    plain = _without_dropout(network).train()
    before, examples = _numbers(plain), torch.ones(EXAMPLES, *inputs)
    drawn = []
    for call in (lambda: None, lambda: plain(examples)):
        with seeded(0):
            call()
            drawn.append((random.random(), np.random.random(), torch.rand(()).item()))  # noqa: NPY002
    if drawn[0] != drawn[1]:
        return "it draws random numbers other than by nn.Dropout"
    changed = [name for name, value in _numbers(plain).items() if before.get(name) != value]
    return f"its forward pass changes {changed[0]}" if changed else None


def _numbers(network: nn.Module) -> dict[str, float]:
    """The numbers among the attributes of all modules."""
    return {
        entry(path, name): value
        for path, module in network.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, int | float)
    }


def _without_dropout(network: nn.Module) -> nn.Module:
    """A copy of `network` in which each `nn.Dropout` is off."""
    plain = copy_network(network)
    for module in plain.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return plain
