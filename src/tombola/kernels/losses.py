"""Losses of a batch and their gradients, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.kernels.compiled import compiled
from tombola.kernels.vectors import (
    LANES,
    add,
    divide,
    exponential,
    larger,
    load,
    multiply,
    splat,
    store,
    subtract,
    where_greater,
)


@compiled
def cross_entropy(logits: Any, labels: Any, width: int, examples: int, deltas: Any) -> Any:
    """The sum of the losses of some of a batch's `examples`, and the number of correct ones; writes the gradient of
    the mean loss of the batch.

    `logits` and `deltas` are (classes, width), flat; `width` is a multiple of 16, and columns past the labels are
    ignored.
    """
    classes, batch = logits.size // width, labels.size
    loss, correct = 0.0, 0
    sums, maxima, best = np.empty(LANES, np.float32), np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    share = np.float32(1) / np.float32(examples)
    for b in range(0, batch, LANES):
        highest, winner = load(logits, b), splat(np.float32(0))
        for c in range(1, classes):
            value = load(logits, c * width + b)
            winner = where_greater(value, highest, splat(np.float32(c)), winner)
            highest = larger(value, highest)
        whole = splat(np.float32(0))
        for c in range(classes):
            power = exponential(subtract(load(logits, c * width + b), highest))
            store(deltas, c * width + b, power)
            whole = add(whole, power)
        scale = divide(splat(share), whole)
        for c in range(classes):
            store(deltas, c * width + b, multiply(load(deltas, c * width + b), scale))
        store(sums, 0, whole)
        store(maxima, 0, highest)
        store(best, 0, winner)
        for i in range(min(LANES, batch - b)):
            at = labels[b + i] * width + b + i
            loss += np.log(sums[i]) - (logits[at] - maxima[i])
            if np.isnan(sums[i]):  # the first NaN is the prediction, as that of argmax; infinities give NaN here, too
                for c in range(classes - 1, -1, -1):
                    if np.isnan(logits[c * width + b + i]):
                        best[i] = c
            correct += best[i] == labels[b + i]
            deltas[at] -= share
    for c in range(classes):
        deltas[c * width + batch : (c + 1) * width] = 0
    return loss, correct
