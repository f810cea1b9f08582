"""Losses of a batch and their gradients, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.kernels.compiled import compiled


@compiled
def cross_entropy(logits: Any, labels: Any, width: int, examples: int, deltas: Any) -> Any:
    """The sum of the losses of some of a batch's `examples`, and the number of correct ones; writes the gradient of
    the mean loss of the batch.

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
            deltas[c * width + b] *= np.float32(1) / (whole * np.float32(examples))
        deltas[label * width + b] -= np.float32(1) / np.float32(examples)
    for c in range(classes):
        deltas[c * width + batch : (c + 1) * width] = 0
    return loss, correct
