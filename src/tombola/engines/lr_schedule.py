"""Schedule: the learning rate of every iteration. Every engine takes its rates from here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tombola.runs.training import Training


def learning_rates(training: Training, first: int, count: int) -> npt.NDArray[np.float64]:
    """The learning rates of iterations `first` to `first + count - 1`, counted from 0; lengths are in iterations.

    `step`: the rate is multiplied by `decay` at each milestone. `cosine`: it falls from `lr` towards 0 along half a
    cosine (Loshchilov & Hutter 2017, without restarts). Over the first `warmup` iterations the rate grows linearly
    up to what it would be without (Goyal et al. 2017): iteration i has (i + 1) / warmup of it. Past the end of the
    training it stays what it was at last: fine-tuning goes on with that.
    """
    length, warmup = training.length.iterations, training.warmup.iterations
    iteration = np.minimum(np.arange(first, first + count), length - 1)
    rates = np.full(count, training.lr)
    if training.schedule == "step":
        milestones = [milestone.iterations for milestone in training.milestones]
        rates *= training.decay ** np.searchsorted(milestones, iteration, side="right")
    if training.schedule == "cosine":
        progress = np.maximum(iteration - warmup, 0) / (length - warmup)
        rates *= (1 + np.cos(np.pi * progress)) / 2
    if warmup:
        rates *= np.minimum((iteration + 1) / warmup, 1)
    return rates
