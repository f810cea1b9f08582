"""Steps of optimizers, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.kernels.compiled import compiled
from tombola.kernels.vectors import divide, fma, inverse_root, load, multiply, splat, store, subtract


@compiled
def update(weights: Any, options: Any, lr: float, count: int, undecayed: int) -> None:
    """One step of Adam (Kingma & Ba 2015; β = 0.9 and 0.999, ε = 1e-8) or SGD, as in torch. Clears the gradients.

    `weights` has the flat arrays `parameters`, `gradients`, `first` and `second`, padded to whole vectors: `first` is
    Adam's first moment, or SGD's momentum, empty for SGD without momentum; `second` is Adam's second moment, empty
    for SGD. `options` are `adam`, `momentum`, `nesterov` and `weight_decay`. `count` is the number of steps,
    including this one. Weight decay applies to the parameters before `undecayed`, a multiple of 16.
    """
    update_range(weights, options, lr, count, options.weight_decay, 0, undecayed)
    update_range(weights, options, lr, count, 0.0, undecayed, weights.parameters.size)


@compiled
def update_range(
    weights: Any, options: Any, lr: float, count: int, weight_decay: float, begin: int, end: int
) -> None:
    """`update` of the parameters from `begin` to `end`."""
    decay, zero = splat(np.float32(weight_decay)), splat(np.float32(0))
    if options.adam:
        one, other = splat(np.float32(0.1)), splat(np.float32(0.001))
        keep = splat(np.float32(0.999))
        correction = splat(np.float32(1 / np.sqrt(1 - 0.999**count)))
        step, tiny = splat(np.float32(-lr / (1 - 0.9**count))), splat(np.float32(1e-8))
        for place in range(begin, end, 16):
            value = load(weights.parameters, place)
            gradient = fma(decay, value, load(weights.gradients, place))
            store(weights.gradients, place, zero)
            first = load(weights.first, place)
            first = fma(one, subtract(gradient, first), first)
            second = fma(other, multiply(gradient, gradient), multiply(keep, load(weights.second, place)))
            store(weights.first, place, first)
            store(weights.second, place, second)
            size = fma(multiply(second, inverse_root(second)), correction, tiny)
            store(weights.parameters, place, fma(step, divide(first, size), value))
    else:
        step, keep = splat(np.float32(-lr)), splat(np.float32(options.momentum))
        for place in range(begin, end, 16):
            value = load(weights.parameters, place)
            gradient = fma(decay, value, load(weights.gradients, place))
            store(weights.gradients, place, zero)
            if weights.first.size:
                first = fma(keep, load(weights.first, place), gradient)
                store(weights.first, place, first)
                gradient = fma(keep, first, gradient) if options.nesterov else first
            store(weights.parameters, place, fma(step, gradient, value))
