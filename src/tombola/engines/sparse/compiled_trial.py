"""Trial of a training plan: what the compiled loops compute with it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tombola.engines.sparse.network_layout import NetworkLayout
from tombola.engines.sparse.trial import Trial
from tombola.kernels.ahead import compile_ahead
from tombola.kernels.plans.training_plan import TrainingPlan
from tombola.kernels.training import loop
from tombola.kernels.training.tables import Options
from tombola.pruning.mask import Mask, State


def compiled_trial(plan: TrainingPlan, state: State, mask: Mask, examples: Tensor, labels: Tensor) -> Trial:
    """The outputs of a plan with the weights of `state` in `mask`, and the gradients of the mean loss, without
    dropout: the same as `run_trial` with `loss_gradient`. Calls the functions that train, so that no others are
    compiled."""
    layout = NetworkLayout(plan, {name: tuple(tensor.shape) for name, tensor in state.items()}, mask)
    layout.structure.steps["probability"] = 0
    net, weights, work = layout.structure, layout.weights(state, 1), layout.workspace(len(examples), training=True)
    size, step = len(examples), net.steps[-1]
    group, lane = np.divmod(np.arange(size), work.n)
    classes = np.arange(plan.logits.shape[0])
    outputs_at = (group * work.group_size + lane)[:, None] + (step["y"] + classes * step["y_plane"]) * work.n
    x, y, rows, black = examples.reshape(size, -1).numpy(), labels.numpy(), np.arange(size), np.zeros(1, np.float32)
    # A step of SGD with a learning rate of zero: the momentum becomes the gradient.
    options = Options(adam=False, momentum=0.0, nesterov=False, weight_decay=0.0, decoupled=False, noise=0, begin=0)
    choices = np.empty((0, 0, 3), np.int64)
    step_arguments = net, weights, work, options, x, y, rows[None], choices, 0, black, np.zeros(1), 0, 0.0
    evaluation_arguments = net, weights, work, x, y, rows, black
    compile_ahead((loop.train, step_arguments), (loop.evaluate, evaluation_arguments))
    outputs = []
    for _ in range(2):
        loop.evaluate(*evaluation_arguments)
        outputs.append(torch.from_numpy(work.activations[outputs_at]))
    loop.train(*step_arguments)
    outputs.append(torch.from_numpy(work.activations[outputs_at]))
    return Trial(outputs, layout.unpack(weights.first))


def loss_gradient(outputs: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the mean cross-entropy of `outputs`, of shape (examples, classes)."""
    return (outputs.softmax(1) - torch.nn.functional.one_hot(labels, outputs.shape[1])) / len(outputs)
