"""Steps of optimizers, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.kernels.compiled import compiled
from tombola.kernels.vectors import LANES, divide, flush, fma, inverse_root, load, multiply, splat, store, subtract


@compiled
def step_sizes(options: Any, lr: float, count: int) -> Any:
    """What `update` multiplies with in step `count`, which counts from 1: the negative learning rate; of Adam, the
    correction of the root of the second moment; and the learning rate for decoupled weight decay."""
    if options.adam:
        return np.float32(-lr / (1 - 0.9**count)), np.float32(1 / np.sqrt(1 - 0.999**count)), lr
    return np.float32(-lr), np.float32(1), lr


@compiled
def update(
    weights: Any, gradients: Any, shift: int, options: Any, sizes: Any, weight_decay: float, begin: int, end: int
) -> None:
    """One step of Adam (Kingma & Ba 2015; β = 0.9 and 0.999, ε = 1e-8), AdamW or SGD, as in torch, of the parameters
    from `begin` to `end`, whole vectors. Clears the gradients, which are at `gradients[begin - shift : end - shift]`.

    `weights` has the flat arrays `parameters`, `first` and `second`: `first` is Adam's first moment, or SGD's
    momentum, empty for SGD without momentum; `second` is Adam's second moment, empty for SGD. Moments closer to zero
    than 2⁻¹⁰⁰ become zero, which changes no weight: without a gradient they would become subnormal. `options` are
    `adam`, `momentum`, `nesterov` and `decoupled`, that of AdamW. `sizes` are those of `step_sizes`.
    """
    decay, zero = splat(np.float32(0 if options.decoupled else weight_decay)), splat(np.float32(0))
    shrink = splat(np.float32(1 - sizes[2] * weight_decay))
    step, correction = splat(sizes[0]), splat(sizes[1])
    if options.adam:
        one, other = splat(np.float32(0.1)), splat(np.float32(0.001))
        keep, tiny = splat(np.float32(0.999)), splat(np.float32(1e-8))
        for place in range(begin, end, LANES):
            value = load(weights.parameters, place)
            gradient = fma(decay, value, load(gradients, place - shift))
            store(gradients, place - shift, zero)
            first = load(weights.first, place)
            first = flush(fma(one, subtract(gradient, first), first))
            second = flush(fma(multiply(other, gradient), gradient, multiply(keep, load(weights.second, place))))
            store(weights.first, place, first)
            store(weights.second, place, second)
            size = fma(multiply(second, inverse_root(second)), correction, tiny)
            if options.decoupled:
                value = multiply(shrink, value)
            store(weights.parameters, place, fma(step, divide(first, size), value))
    else:
        keep = splat(np.float32(options.momentum))
        for place in range(begin, end, LANES):
            value = load(weights.parameters, place)
            gradient = fma(decay, value, load(gradients, place - shift))
            store(gradients, place - shift, zero)
            if weights.first.size:
                first = flush(fma(keep, load(weights.first, place), gradient))
                store(weights.first, place, first)
                gradient = fma(keep, first, gradient) if options.nesterov else first
            store(weights.parameters, place, fma(step, gradient, value))
