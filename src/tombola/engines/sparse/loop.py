"""Loop: the whole training of a stack of linear layers as two compiled functions, `train` and `evaluate`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tombola.engines.sparse.compiled import compiled
from tombola.engines.sparse.products import Floats, Indices, columns_of, sampled_product, sparse_times_dense, take
from tombola.engines.sparse.vectors import add, divide, fma, load, multiply, root, splat, store, subtract, total

Table = npt.NDArray[np.int64]


class Shape(NamedTuple):
    """What of a network does not change while it trains.

    `layers` has a row for each layer; its columns are named below. The matrices of sparse layers lie one after the
    other in `columns` and `bounds`; `back_…` are their transposes, `back_places` saying where in the layer's own
    order each value is.
    """

    layers: Table
    dropout: Floats
    """Of the inputs and of each layer's outputs: the probability that one is dropped."""
    columns: Indices
    bounds: Indices
    back_columns: Indices
    back_bounds: Indices
    back_places: Indices
    kept: npt.NDArray[np.uint8]
    """For each parameter, 0 where it is pruned: only in layers that are trained dense."""


INPUTS, OUTPUTS, FIRST, LAST, BIAS, SPARSE, MASKED, RELU, UNIT, ENTRY, BOUND, BOUNDS, BACK, BACKS = range(14)
"""Columns of `Shape.layers`: sizes; the layer's weights are parameters FIRST to LAST; BIAS is the place of its biases
or -1; whether it is sparse, dense with a mask, followed by ReLU; how many units come before its own; where its matrix
begins in `columns`, and begins and ends in `bounds` and `back_bounds`."""


class StackWeights(NamedTuple):
    """What changes: float32, all layers' weights and biases one after another, padded to whole vectors."""

    parameters: Floats
    gradients: Floats
    first: Floats
    """Adam's first moment, SGD's momentum; empty for SGD without."""
    second: Floats
    """Adam's second moment; empty for SGD."""


class Workspaces(NamedTuple):
    """Working space for `width` examples side by side: (units, width), flat."""

    inputs: Floats
    activations: Floats
    """The outputs of all layers, one after another."""
    deltas: Floats
    """Gradients with respect to them."""
    factors: Floats
    """What dropout multiplied them by; empty where there is none."""
    turned: Floats
    """A layer's values in the order of its transpose."""


class Options(NamedTuple):
    """How a step changes the parameters."""

    adam: bool
    momentum: float
    nesterov: bool
    weight_decay: float
    noise: int
    """Seed of dropout."""
    begin: int
    """The iteration at which the optimizer began, which is less than the first where it goes on from an earlier run;
    Adam counts its steps from there."""


@compiled
def uniform(seed: Any, iteration: Any, place: Any) -> Any:
    """A number in [0, 1) that depends on these three alone (the mixing function of SplitMix64, Steele et al. 2014).

    Nothing is carried from draw to draw, so that a resumed training has no state of it to restore.
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
    """Drop activations, each with that probability, and scale up the others. The first is number `first` of all."""
    scale = np.float32(1 / (1 - probability))
    for place in range(activations.size):
        factor = np.float32(0) if uniform(seed, iteration, first + place) < probability else scale
        factors[place] = factor
        activations[place] *= factor


@compiled
def forward(shape: Any, weights: Any, rooms: Any, width: int, training: bool, noise: int, iteration: int) -> None:
    """From the inputs to the logits, which are the last activations."""
    if training and shape.dropout[0] > 0:
        drop(rooms.inputs, rooms.factors, shape.dropout[0], noise, iteration, 0)
    for index in range(shape.layers.shape[0]):
        layer = shape.layers[index]
        begin, end = layer[UNIT] * width, (layer[UNIT] + layer[OUTPUTS]) * width
        source = rooms.inputs if index == 0 else rooms.activations[begin - layer[INPUTS] * width : begin]
        out = rooms.activations[begin:end]
        values = weights.parameters[layer[FIRST] : layer[LAST]]
        if layer[SPARSE]:
            columns = shape.columns[layer[ENTRY] : layer[ENTRY] + values.size]
            bounds = shape.bounds[layer[BOUND] : layer[BOUNDS]]
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
                row[b] = least if value < least else value  # a NaN stays one
        if training and shape.dropout[index + 1] > 0:
            drop(out, rooms.factors[begin:end], shape.dropout[index + 1], noise, iteration, rooms.inputs.size + begin)


@compiled
def cross_entropy(logits: Any, labels: Any, width: int, deltas: Any) -> Any:
    """The sum of the losses of a batch and how many are right; `deltas` gets the gradient of the mean loss.

    `logits` and `deltas` are (classes, width), flat; columns past the labels are no examples.
    """
    classes, batch = logits.size // width, labels.size
    loss, right = 0.0, 0
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
        right += best == label
        for c in range(classes):
            deltas[c * width + b] *= np.float32(1) / (whole * np.float32(batch))
        deltas[label * width + b] -= np.float32(1) / np.float32(batch)
    for c in range(classes):
        deltas[c * width + batch : (c + 1) * width] = 0
    return loss, right


@compiled
def backward(shape: Any, weights: Any, rooms: Any, width: int) -> None:
    """From the gradient of the logits, which is the last of the deltas, to those of the weights left."""
    for index in range(shape.layers.shape[0] - 1, -1, -1):
        layer = shape.layers[index]
        begin, end = layer[UNIT] * width, (layer[UNIT] + layer[OUTPUTS]) * width
        before = begin - layer[INPUTS] * width
        delta = rooms.deltas[begin:end]
        source = rooms.inputs if index == 0 else rooms.activations[before:begin]
        values = weights.parameters[layer[FIRST] : layer[LAST]]
        gradients = weights.gradients[layer[FIRST] : layer[LAST]]
        if layer[SPARSE]:
            columns = shape.columns[layer[ENTRY] : layer[ENTRY] + values.size]
            bounds = shape.bounds[layer[BOUND] : layer[BOUNDS]]
            gradients[:] = 0
            sampled_product(columns, bounds, layer[OUTPUTS], width, delta, width, source, width, gradients)
        else:
            turned = source.reshape(layer[INPUTS], width).T
            np.dot(delta.reshape(layer[OUTPUTS], width), turned, gradients.reshape(layer[OUTPUTS], layer[INPUTS]))
            if layer[MASKED]:
                kept = shape.kept[layer[FIRST] : layer[LAST]]
                for k in range(kept.size):
                    gradients[k] *= kept[k]
        if layer[BIAS] >= 0:
            for unit in range(layer[OUTPUTS]):
                whole = splat(np.float32(0))
                for t in range(unit * width, (unit + 1) * width, 16):
                    whole = add(whole, load(delta, t))
                weights.gradients[layer[BIAS] + unit] = total(whole)
        if index > 0:
            previous = rooms.deltas[before:begin]
            if layer[SPARSE]:
                places = shape.back_places[layer[ENTRY] : layer[ENTRY] + values.size]
                columns = shape.back_columns[layer[ENTRY] : layer[ENTRY] + values.size]
                bounds = shape.back_bounds[layer[BACK] : layer[BACKS]]
                take(values, places, rooms.turned)
                sparse_times_dense(rooms.turned, columns, bounds, layer[INPUTS], width, delta, width, previous)
            else:
                matrix = values.reshape(layer[OUTPUTS], layer[INPUTS])
                out = previous.reshape(layer[INPUTS], width)
                np.dot(matrix.T, delta.reshape(layer[OUTPUTS], width), out)
            if shape.layers[index - 1, RELU]:
                for t in range(previous.size):
                    previous[t] = previous[t] if source[t] > 0 else np.float32(0)
            if shape.dropout[index] > 0:
                factors = rooms.factors[before:begin]
                for t in range(previous.size):
                    previous[t] *= factors[t]


@compiled
def update(weights: Any, options: Any, lr: float, count: int) -> None:
    """One step of Adam (Kingma & Ba 2015; β = 0.9 and 0.999, ε = 1e-8) or SGD, as in torch.

    `count` says how many steps there have been, this one included.
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
    shape: Any,
    weights: Any,
    rooms: Any,
    width: int,
    options: Any,
    x: Any,
    y: Any,
    orders: Any,
    rates: Any,
    iteration: int,
    losses: float,
) -> float:
    """Train on the batches `orders`: int64 of shape (steps, batch), rows of `x` and `y`. Adds to `losses`.

    `width` is the batch size, rounded up to whole vectors; `rates` are the learning rates of the steps; `iteration`
    is the number of the first. Each loss is added by itself, so that the sum is the same bits however the iterations
    are cut into calls.
    """
    begin = shape.layers[-1, UNIT] * width
    labels, places = np.empty(orders.shape[1], np.int64), np.empty(width, np.int64)
    for step in range(orders.shape[0]):
        rows = orders[step]
        columns_of(x, rows, width, places, rooms.inputs)
        for b in range(rows.size):
            labels[b] = y[rows[b]]
        forward(shape, weights, rooms, width, True, options.noise, iteration + step)
        loss, _ = cross_entropy(rooms.activations[begin:], labels, width, rooms.deltas[begin:])
        losses += loss / rows.size
        backward(shape, weights, rooms, width)
        update(weights, options, rates[step], iteration + step + 1 - options.begin)
    return losses


@compiled
def evaluate(shape: Any, weights: Any, rooms: Any, width: int, x: Any, y: Any, rows: Any) -> Any:
    """The sum of the losses of the examples in these rows of `x` and `y`, and how many are right."""
    begin = shape.layers[-1, UNIT] * width
    losses, right = 0.0, 0
    labels, places = np.empty(width, np.int64), np.empty(width, np.int64)
    for first in range(0, rows.size, width):
        some = rows[first : first + width]
        columns_of(x, some, width, places, rooms.inputs)
        forward(shape, weights, rooms, width, False, 0, 0)
        for b in range(some.size):
            labels[b] = y[some[b]]
        loss, correct = cross_entropy(rooms.activations[begin:], labels[: some.size], width, rooms.deltas[begin:])
        losses += loss
        right += correct
    return losses, right
