"""Compiled training and evaluation of a stack of linear layers: `train` and `evaluate`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tombola.kernels.compiled import compiled
from tombola.kernels.products import (
    Floats,
    Indices,
    examples_to_columns,
    gather,
    sampled_product,
    sparse_times_dense,
)
from tombola.kernels.vectors import add, divide, fma, load, multiply, root, splat, store, subtract, total

Table = npt.NDArray[np.int64]


class StackStructure(NamedTuple):
    """What does not change during a training.

    `layers` has a row for each layer; its columns are named below. The patterns of sparse layers are concatenated in
    `columns` and `bounds`; `back_…` are those of their transposes, and `back_places` the index of each of their
    values in the layer's own order.
    """

    layers: Table
    dropout: Floats
    """Probabilities, for the inputs and each layer's outputs."""
    columns: Indices
    bounds: Indices
    back_columns: Indices
    back_bounds: Indices
    back_places: Indices
    kept: npt.NDArray[np.uint8]
    """0 for each pruned weight of the layers that are trained dense, 1 for all other parameters."""


INPUTS, OUTPUTS, FIRST, LAST, BIAS, SPARSE, MASKED, RELU, UNIT, ENTRY, BOUND, BOUNDS, BACK, BACKS = range(14)
"""Columns of `StackStructure.layers`: sizes; the layer's weights are parameters FIRST to LAST; BIAS is the index of
its biases, or -1; whether it is sparse, dense with a mask, followed by ReLU; the number of units before its own;
where its pattern begins in `columns`, and begins and ends in `bounds` and `back_bounds`."""


class StackWeights(NamedTuple):
    """Parameters and optimizer state: float32, all weights and biases concatenated, padded to whole vectors."""

    parameters: Floats
    gradients: Floats
    first: Floats
    """Adam's first moment, or SGD's momentum; empty for SGD without momentum."""
    second: Floats
    """Adam's second moment; empty for SGD."""


class Workspace(NamedTuple):
    """Arrays for `width` examples: (units, width), flat."""

    inputs: Floats
    activations: Floats
    """The outputs of all layers, concatenated."""
    deltas: Floats
    """Gradients with respect to the activations."""
    factors: Floats
    """The factors of dropout; empty without dropout."""
    transposed: Floats
    """A layer's values in the order of its transpose."""


class Options(NamedTuple):
    """Options of the optimizer and of dropout."""

    adam: bool
    momentum: float
    nesterov: bool
    weight_decay: float
    noise: int
    """Seed of dropout."""
    begin: int
    """The iteration at which the optimizer began, from which Adam counts its steps; earlier than the first iteration
    where the optimizer continues from another run."""


@compiled
def uniform(seed: Any, iteration: Any, place: Any) -> Any:
    """A number in [0, 1) that depends only on the arguments (the mixing function of SplitMix64, Steele et al. 2014).

    There is no random state, so a checkpoint need not save one.
    """
    mixed = np.uint64(seed)
    for part in (np.uint64(iteration), np.uint64(place)):
        mixed = mixed ^ (part * np.uint64(0x9E3779B97F4A7C15))
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return np.float64(mixed >> np.uint64(11)) * 2.0**-53


@compiled
def drop(activations: Floats, factors: Floats, probability: float, seed: int, iteration: int, first: int) -> None:
    """Dropout, in place. `first` is the number of the first activation among all of the network."""
    scale = np.float32(1 / (1 - probability))
    for place in range(activations.size):
        factor = np.float32(0) if uniform(seed, iteration, first + place) < probability else scale
        factors[place] = factor
        activations[place] *= factor


@compiled
def forward(stack: Any, weights: Any, work: Any, width: int, training: bool, noise: int, iteration: int) -> None:
    """Compute the activations from the inputs; the last are the logits."""
    if training and stack.dropout[0] > 0:
        drop(work.inputs, work.factors, stack.dropout[0], noise, iteration, 0)
    for index in range(stack.layers.shape[0]):
        layer = stack.layers[index]
        begin, end = layer[UNIT] * width, (layer[UNIT] + layer[OUTPUTS]) * width
        source = work.inputs if index == 0 else work.activations[begin - layer[INPUTS] * width : begin]
        out = work.activations[begin:end]
        values = weights.parameters[layer[FIRST] : layer[LAST]]
        if layer[SPARSE]:
            columns = stack.columns[layer[ENTRY] : layer[ENTRY] + values.size]
            bounds = stack.bounds[layer[BOUND] : layer[BOUNDS]]
            sparse_times_dense(values, columns, bounds, layer[OUTPUTS], width, source, width, out)
        else:
            matrix = values.reshape(layer[OUTPUTS], layer[INPUTS])
            np.dot(matrix, source.reshape(layer[INPUTS], width), out.reshape(layer[OUTPUTS], width))
        least = np.float32(0) if layer[RELU] else np.float32(-np.inf)
        for unit in range(layer[OUTPUTS]):
            bias = weights.parameters[layer[BIAS] + unit] if layer[BIAS] >= 0 else np.float32(0)
            row = out[unit * width : (unit + 1) * width]
            for b in range(width):
                value = row[b] + bias
                row[b] = least if value < least else value  # keeps NaN
        if training and stack.dropout[index + 1] > 0:
            drop(out, work.factors[begin:end], stack.dropout[index + 1], noise, iteration, work.inputs.size + begin)


@compiled
def cross_entropy(logits: Any, labels: Any, width: int, deltas: Any) -> Any:
    """The sum of the losses of a batch and the number of correct examples; writes the gradient of the mean loss.

    `logits` and `deltas` are (classes, width), flat; columns past the labels are ignored.
    """
    classes, batch = logits.size // width, labels.size
    loss, correct = 0.0, 0
    for b in range(batch):
        largest, best = logits[b], 0
        for c in range(1, classes):
            value = logits[c * width + b]
            if value > largest or np.isnan(value):
                largest, best = value, c
        whole = np.float32(0)
        for c in range(classes):
            share = np.exp(logits[c * width + b] - largest)
            deltas[c * width + b] = share
            whole += share
        label = labels[b]
        loss += np.log(whole) - (logits[label * width + b] - largest)
        correct += best == label
        for c in range(classes):
            deltas[c * width + b] *= np.float32(1) / (whole * np.float32(batch))
        deltas[label * width + b] -= np.float32(1) / np.float32(batch)
    for c in range(classes):
        deltas[c * width + batch : (c + 1) * width] = 0
    return loss, correct


@compiled
def backward(stack: Any, weights: Any, work: Any, width: int) -> None:
    """Compute the gradients of the parameters from that of the logits, which is the last of the deltas."""
    for index in range(stack.layers.shape[0] - 1, -1, -1):
        layer = stack.layers[index]
        begin, end = layer[UNIT] * width, (layer[UNIT] + layer[OUTPUTS]) * width
        before = begin - layer[INPUTS] * width
        delta = work.deltas[begin:end]
        source = work.inputs if index == 0 else work.activations[before:begin]
        values = weights.parameters[layer[FIRST] : layer[LAST]]
        gradients = weights.gradients[layer[FIRST] : layer[LAST]]
        if layer[SPARSE]:
            columns = stack.columns[layer[ENTRY] : layer[ENTRY] + values.size]
            bounds = stack.bounds[layer[BOUND] : layer[BOUNDS]]
            gradients[:] = 0
            sampled_product(columns, bounds, layer[OUTPUTS], width, delta, width, source, width, gradients)
        else:
            transposed = source.reshape(layer[INPUTS], width).T
            np.dot(delta.reshape(layer[OUTPUTS], width), transposed, gradients.reshape(layer[OUTPUTS], layer[INPUTS]))
            if layer[MASKED]:
                kept = stack.kept[layer[FIRST] : layer[LAST]]
                for k in range(kept.size):
                    gradients[k] *= kept[k]
        if layer[BIAS] >= 0:
            for unit in range(layer[OUTPUTS]):
                whole = splat(np.float32(0))
                for t in range(unit * width, (unit + 1) * width, 16):
                    whole = add(whole, load(delta, t))
                weights.gradients[layer[BIAS] + unit] = total(whole)
        if index > 0:
            previous = work.deltas[before:begin]
            if layer[SPARSE]:
                places = stack.back_places[layer[ENTRY] : layer[ENTRY] + values.size]
                columns = stack.back_columns[layer[ENTRY] : layer[ENTRY] + values.size]
                bounds = stack.back_bounds[layer[BACK] : layer[BACKS]]
                gather(values, places, work.transposed)
                sparse_times_dense(work.transposed, columns, bounds, layer[INPUTS], width, delta, width, previous)
            else:
                matrix = values.reshape(layer[OUTPUTS], layer[INPUTS])
                out = previous.reshape(layer[INPUTS], width)
                np.dot(matrix.T, delta.reshape(layer[OUTPUTS], width), out)
            if stack.layers[index - 1, RELU]:
                for t in range(previous.size):
                    previous[t] = previous[t] if source[t] > 0 else np.float32(0)
            if stack.dropout[index] > 0:
                factors = work.factors[before:begin]
                for t in range(previous.size):
                    previous[t] *= factors[t]


@compiled
def update(weights: Any, options: Any, lr: float, count: int) -> None:
    """One step of Adam (Kingma & Ba 2015; β = 0.9 and 0.999, ε = 1e-8) or SGD, as in torch.

    `count` is the number of steps, including this one.
    """
    decay = splat(np.float32(options.weight_decay))
    if options.adam:
        one, other = splat(np.float32(0.1)), splat(np.float32(0.001))
        keep = splat(np.float32(0.999))
        correction = splat(np.float32(np.sqrt(1 - 0.999**count)))
        step, tiny = splat(np.float32(-lr / (1 - 0.9**count))), splat(np.float32(1e-8))
        for place in range(0, weights.parameters.size, 16):
            value = load(weights.parameters, place)
            gradient = fma(decay, value, load(weights.gradients, place))
            first = load(weights.first, place)
            first = fma(one, subtract(gradient, first), first)
            second = fma(other, multiply(gradient, gradient), multiply(keep, load(weights.second, place)))
            store(weights.first, place, first)
            store(weights.second, place, second)
            size = add(divide(root(second), correction), tiny)
            store(weights.parameters, place, fma(step, divide(first, size), value))
    else:
        step, keep = splat(np.float32(-lr)), splat(np.float32(options.momentum))
        for place in range(0, weights.parameters.size, 16):
            value = load(weights.parameters, place)
            gradient = fma(decay, value, load(weights.gradients, place))
            if weights.first.size:
                first = fma(keep, load(weights.first, place), gradient)
                store(weights.first, place, first)
                gradient = fma(keep, first, gradient) if options.nesterov else first
            store(weights.parameters, place, fma(step, gradient, value))


@compiled
def train(
    stack: Any,
    weights: Any,
    work: Any,
    width: int,
    options: Any,
    x: Any,
    y: Any,
    orders: Any,
    rates: Any,
    iteration: int,
    losses: float,
) -> float:
    """Train on the batches `orders`: rows of `x` and `y`, int64 of shape (steps, batch). Returns `losses` increased.

    `width` is the batch size, rounded up to whole vectors; `rates` are the learning rates of the steps; `iteration`
    is the number of the first. Losses are added one by one, so that the bits of the sum do not depend on how the
    iterations are divided into calls.
    """
    begin = stack.layers[-1, UNIT] * width
    labels, places = np.empty(orders.shape[1], np.int64), np.empty(width, np.int64)
    for step in range(orders.shape[0]):
        rows = orders[step]
        examples_to_columns(x, rows, width, places, work.inputs)
        for b in range(rows.size):
            labels[b] = y[rows[b]]
        forward(stack, weights, work, width, True, options.noise, iteration + step)
        loss, _ = cross_entropy(work.activations[begin:], labels, width, work.deltas[begin:])
        losses += loss / rows.size
        backward(stack, weights, work, width)
        update(weights, options, rates[step], iteration + step + 1 - options.begin)
    return losses


@compiled
def evaluate(stack: Any, weights: Any, work: Any, width: int, x: Any, y: Any, rows: Any) -> Any:
    """The sum of the losses of these rows of `x` and `y`, and the number of correct examples."""
    begin = stack.layers[-1, UNIT] * width
    losses, correct = 0.0, 0
    labels, places = np.empty(width, np.int64), np.empty(width, np.int64)
    for first in range(0, rows.size, width):
        some = rows[first : first + width]
        examples_to_columns(x, some, width, places, work.inputs)
        forward(stack, weights, work, width, False, 0, 0)
        for b in range(some.size):
            labels[b] = y[some[b]]
        loss, hits = cross_entropy(work.activations[begin:], labels[: some.size], width, work.deltas[begin:])
        losses += loss
        correct += hits
    return losses, correct
