"""Forward and backward passes of a network."""

from __future__ import annotations

from typing import Any

from tombola.kernels.compiled import compiled
from tombola.kernels.optimizers import update
from tombola.kernels.training.dense_update import dense_update
from tombola.kernels.training.elementwise import (
    add_sums,
    addend_backward,
    clear_gradient_padding,
    copy_backward,
    copy_forward,
    dropout,
    norm_backward,
    norm_forward,
    norm_gradients,
    norm_sums,
    prepare_norm,
)
from tombola.kernels.training.pool_steps import pool_backward, pool_forward
from tombola.kernels.training.product_steps import (
    mask_gradients,
    product_backward,
    product_forward,
    product_gradients,
    transpose_values,
)
from tombola.kernels.training.tables import AVERAGE_POOL, COPY, DROPOUT, INPUT, MAX_POOL, NORM, PRODUCT, Step


@compiled
def step_forward(
    net: Any, weights: Any, work: Any, step: Step, g: int, training: bool, seed: int, iteration: int
) -> None:
    """Compute a step for group `g`; a step of the whole batch is computed with the first group."""
    if step.kind == PRODUCT:
        product_forward(net, weights, work, step, g)
    elif step.kind == NORM:
        norm_forward(weights, work, step, g)
    elif step.kind == COPY:
        copy_forward(work, step, g)
    elif step.kind == MAX_POOL or step.kind == AVERAGE_POOL:
        pool_forward(work, step, g)
    elif step.kind == DROPOUT:
        if training:
            dropout(work, step, g, seed, iteration, False)
        else:
            copy_forward(work, step, g)
    if training and step.sums >= 0:
        if step.kind == INPUT:
            add_sums(work, step, g, step.x, step.x_plane, step.x_line, step.in_height, step.in_width)
        else:
            for group in range(g, work.groups if step.whole else g + 1):
                add_sums(work, step, group, step.y, step.y_plane, step.y_line, step.height, step.width)


@compiled
def forward(net: Any, weights: Any, work: Any, training: bool, examples: int, seed: int, iteration: int) -> None:
    """Compute all activations from the inputs."""
    work.sums[:] = 0
    for s in range(net.segments.shape[0]):
        begin, end = net.segments[s, 0], net.segments[s, 1]
        if net.steps[begin].kind == NORM:
            prepare_norm(weights, work, net.steps[begin], examples, training)
        for g in range(1 if net.steps[begin].whole else work.groups):
            for i in range(begin, end):
                step_forward(net, weights, work, net.steps[i], g, training, seed, iteration)


@compiled
def step_backward(
    net: Any, weights: Any, work: Any, step: Step, g: int, options: Any, sizes: Any, iteration: int
) -> None:
    """The gradients of a step's parameters, source and addend, from that of its output; of a batch norm, only its
    sums. The zeros around gradients are set here, whichever step is the first to write them."""
    for group in range(g, work.groups if step.whole else g + 1):
        clear_gradient_padding(work, step, group)
    if step.kind == PRODUCT:
        product_gradients(net, weights, work, step, g)
        if step.dx >= 0:
            product_backward(net, weights, work, step, g)
        if step.by_rows:
            dense_update(net, weights, work, step, options, sizes)
    elif step.kind == NORM:
        norm_sums(work, step, g)
    elif step.kind == COPY:
        if step.dx >= 0:
            copy_backward(work, step, g)
    elif step.kind == MAX_POOL or step.kind == AVERAGE_POOL:
        if step.dx >= 0:
            pool_backward(work, step, g)
    elif step.kind == DROPOUT and step.dx >= 0:
        dropout(work, step, g, options.noise, iteration, True)
    if step.da >= 0:
        addend_backward(work, step, g)


@compiled
def backward(net: Any, weights: Any, work: Any, examples: int, options: Any, sizes: Any, iteration: int) -> None:
    """Add the gradients of all parameters, from that of the logits. The weights of steps `by_rows` are updated at
    once, by `sizes` of `step_sizes`."""
    for i in range(net.steps.size):
        if net.steps[i].kind == PRODUCT and net.steps[i].dx >= 0:
            transpose_values(net, weights, work, net.steps[i])
    norm = -1  # a batch norm whose sums are known, and of whose source the gradient is not
    for s in range(net.segments.shape[0] - 1, -1, -1):
        begin, end = net.segments[s, 0], net.segments[s, 1]
        whole = net.steps[begin].whole
        for g in range(work.groups):
            if norm >= 0:
                norm_backward(weights, work, net.steps[norm], g, examples)
            if not whole:
                for i in range(end - 1, begin - 1, -1):
                    step_backward(net, weights, work, net.steps[i], g, options, sizes, iteration)
        for g in range(1 if whole else 0):  # not a constant, of which numba would compile a version
            step_backward(net, weights, work, net.steps[begin], g, options, sizes, iteration)
        norm = -1
        if net.steps[begin].kind == NORM:
            norm_gradients(weights, work, net.steps[begin])
            norm = begin if net.steps[begin].dx >= 0 else -1
    for i in range(net.steps.size):
        if net.steps[i].masked and not net.steps[i].by_rows:
            mask_gradients(net, weights, net.steps[i])


@compiled
def update_rest(net: Any, weights: Any, options: Any, sizes: Any) -> None:
    """Update all parameters but the weights of steps `by_rows`, which begin and end with whole vectors."""
    begin = 0
    for i in range(net.steps.size):
        if net.steps[i].by_rows:
            end = net.steps[i].weights
            update(weights, weights.gradients, 0, options, sizes, options.weight_decay, begin, end)
            begin = net.steps[i].weights_end
    update(weights, weights.gradients, 0, options, sizes, options.weight_decay, begin, net.undecayed)
    update(weights, weights.gradients, 0, options, sizes, 0.0, net.undecayed, weights.parameters.size)
