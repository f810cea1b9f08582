"""Training and evaluation of a network, many iterations a call."""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.kernels.compiled import compiled
from tombola.kernels.losses import cross_entropy
from tombola.kernels.optimizers import step_sizes
from tombola.kernels.training.batches import load_batch
from tombola.kernels.training.passes import backward, forward, update_rest
from tombola.kernels.training.places import gradient_at, value_at
from tombola.kernels.vectors import LANES, load, store


@compiled
def loss_and_gradient(net: Any, work: Any, labels: Any, examples: int, back: bool) -> Any:
    """The sum of the losses of a batch and the number of correct examples. With `back`, writes the gradient of the
    mean loss."""
    step = net.steps[net.steps.size - 1]
    n, classes = work.n, step.rows
    losses, correct = 0.0, 0
    for g in range(work.groups):
        count = max(0, min(n, examples - g * n))
        place = value_at(work, g, step.y)
        logits = work.activations[place : place + classes * n]
        loss, hits = cross_entropy(logits, labels[g * n : g * n + count], n, examples, work.logits)
        losses += loss
        correct += hits
        if back:
            for c in range(classes):
                place = gradient_at(work, g, step.dy + c * step.dy_plane)
                for t in range(0, n, LANES):  # not a slice, whose error message would take seconds to compile
                    store(work.deltas, place + t, load(work.logits, c * n + t))
    return losses, correct


@compiled
def train(
    net: Any,
    weights: Any,
    work: Any,
    options: Any,
    x: Any,
    y: Any,
    orders: Any,
    choices: Any,
    crop: int,
    black: Any,
    rates: Any,
    iteration: int,
    losses: float,
) -> float:
    """Train on the batches `orders`: rows of `x` and `y`, int64 of shape (steps, batch). Returns `losses` increased.

    `choices`: of shape (steps, batch, 3) with augmentation, else empty; see `load_batch`. `rates` are the
    learning rates of the steps; `iteration` is the number of the first. Losses are added one by one, so that the bits
    of the sum do not depend on how the iterations are divided into calls.
    """
    starts, labels = np.empty(work.n, np.int64), np.empty(work.groups * work.n, np.int64)
    examples = orders.shape[1]
    for step in range(orders.shape[0]):
        drawn = choices[step] if choices.shape[0] else choices[0:0].reshape(0, choices.shape[2])
        load_batch(net, work, x, y, orders[step], drawn, crop, black, starts, labels)
        forward(net, weights, work, True, examples, options.noise, iteration + step)
        loss, _ = loss_and_gradient(net, work, labels, examples, True)
        losses += loss / examples
        sizes = step_sizes(options, rates[step], iteration + step + 1 - options.begin)
        backward(net, weights, work, examples, options, sizes, iteration + step)
        update_rest(net, weights, options, sizes)
    return losses


@compiled
def evaluate(net: Any, weights: Any, work: Any, x: Any, y: Any, rows: Any, black: Any) -> Any:
    """The sum of the losses of these rows of `x` and `y`, and the number of correct examples."""
    losses, correct, size = 0.0, 0, work.groups * work.n
    starts, labels = np.empty(work.n, np.int64), np.empty(size, np.int64)
    choices = np.empty((0, 3), np.int64)
    for first in range(0, rows.size, size):
        some = rows[first : first + size]
        load_batch(net, work, x, y, some, choices, 0, black, starts, labels)
        forward(net, weights, work, False, some.size, 0, 0)
        loss, hits = loss_and_gradient(net, work, labels, some.size, False)
        losses += loss
        correct += hits
    return losses, correct
