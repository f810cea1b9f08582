"""SGD and Adam with the mask, for a tile of weights: what the kernels that update weights have in common."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def update(
    parameter,
    first,
    second,
    step,
    pruned,
    lr,
    offsets,
    inside,
    gradient,
    ADAM: tl.constexpr,
    MOMENTUM: tl.constexpr,
    BETA2: tl.constexpr,
    LOG_MOMENTUM: tl.constexpr,
    LOG_BETA2: tl.constexpr,
    EPS: tl.constexpr,
    WEIGHT_DECAY: tl.constexpr,
    NESTEROV: tl.constexpr,
    LR_ON_DEVICE: tl.constexpr,
):
    """Update the weights w at `parameter + offsets` and their state in place, where `inside`, by their `gradient` g.

    With g' = g + WEIGHT_DECAY·w, as `torch.optim` does:

    - SGD: w -= lr·g'
    - SGD with momentum µ: b = µ·b + g'; w -= lr·b, or lr·(g' + µ·b) with Nesterov's
    - Adam: m = µ·m + (1 - µ)·g'; v = β·v + (1 - β)·g'²; w -= lr/(1 - µᵗ) · m / (√v / √(1 - βᵗ) + ε)

    `first` is b or m, `second` v, `step` one float, t; where `pruned` (one byte a weight) is not 0, w becomes 0. What
    a rule does not need is None. `lr` is a float, or a pointer to one. Moves, a weight: 8 bytes for SGD, 16 with
    momentum, 24 for Adam, and 1 of the mask.
    """
    weight = tl.load(parameter + offsets, mask=inside, other=0.0)
    rate = tl.load(lr) if LR_ON_DEVICE else lr
    if WEIGHT_DECAY != 0.0:
        gradient += WEIGHT_DECAY * weight
    if ADAM:
        count = tl.load(step).to(tl.float64)  # 1 - βᵗ has few correct digits in float32
        correction = (1.0 - tl.exp(count * LOG_MOMENTUM)).to(tl.float32)
        root = tl.sqrt((1.0 - tl.exp(count * LOG_BETA2)).to(tl.float32))
        mean = MOMENTUM * tl.load(first + offsets, mask=inside, other=0.0) + (1.0 - MOMENTUM) * gradient
        square = BETA2 * tl.load(second + offsets, mask=inside, other=0.0) + (1.0 - BETA2) * (gradient * gradient)
        tl.store(first + offsets, mean, mask=inside)
        tl.store(second + offsets, square, mask=inside)
        weight -= rate / correction * mean / (tl.sqrt(square) / root + EPS)
    elif MOMENTUM != 0.0:
        buffer = MOMENTUM * tl.load(first + offsets, mask=inside, other=0.0) + gradient
        tl.store(first + offsets, buffer, mask=inside)
        weight -= rate * (gradient + MOMENTUM * buffer) if NESTEROV else rate * buffer
    else:
        weight -= rate * gradient
    if pruned is not None:
        weight = tl.where(tl.load(pruned + offsets, mask=inside, other=0) != 0, 0.0, weight)
    tl.store(parameter + offsets, weight, mask=inside)
