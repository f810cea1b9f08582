"""Trial of a training plan: what the compiled loops compute with it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tombola.engines.sparse.network_layout import NetworkLayout
from tombola.engines.sparse.trial import Trial
from tombola.kernels.plans.training_plan import TrainingPlan
from tombola.kernels.training import passes
from tombola.kernels.training.batches import load_batch
from tombola.pruning.mask import Mask, State
from tombola.utils.random_state import preserve_rng_state


def compiled_trial(plan: TrainingPlan, state: State, examples: Tensor) -> Trial:
    """The outputs and gradients of a plan with the weights in `state`, without dropout; the same as `run_trial`."""
    layout = NetworkLayout(plan, {name: tuple(tensor.shape) for name, tensor in state.items()}, Mask({}))
    layout.structure.steps["probability"] = 0
    net, weights, work = layout.structure, layout.weights(state), layout.workspace(len(examples), training=True)
    size, step = len(examples), net.steps[-1]
    group, lane = np.divmod(np.arange(size), work.n)
    classes = np.arange(plan.logits.shape[0])
    outputs_at, gradients_at = (
        (group * room + lane)[:, None] + (first + classes * plane) * work.n
        for room, first, plane in (
            (work.room, step["y"], step["y_plane"]),
            (work.back_room, step["dy"], step["dy_plane"]),
        )
    )
    x, rows = examples.reshape(size, -1).numpy(), np.arange(size)
    not_augmented = np.empty((0, 3), np.int64), 0, np.zeros(1, np.float32)
    outputs = []
    for training in (False, False, True):
        load_batch(net, work, x, rows, rows, *not_augmented, np.empty(work.n, np.int64), np.empty(size, np.int64))
        passes.forward(net, weights, work, training, size, 0, 0)
        outputs.append(torch.from_numpy(work.activations[outputs_at]))
    with preserve_rng_state():
        gradient = torch.randn_like(outputs[-1])
    work.deltas[gradients_at] = gradient.numpy()
    passes.backward(net, weights, work, size, 0, 0)
    return Trial(outputs, layout.unpack(weights.gradients))
