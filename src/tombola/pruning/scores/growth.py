"""The score by which pruned weights are grown."""

from __future__ import annotations

from torch import Tensor

from tombola.pruning.scores.gradients import batch_gradients, network_with_gradients
from tombola.pruning.scores.inputs import ScoreInputs


def gradient(inputs: ScoreInputs) -> dict[str, Tensor]:
    """|∂loss/∂w| on one batch, for pruned weights too, which are zero (RigL: Evci et al. 2020, section 3).

    The network is in the mode of `ScoreInputs.network`; the paper's code uses the gradient of the training step
    instead. Raises `InputError` if the network or examples are missing.
    """
    network, weights = network_with_gradients(inputs)
    gradients = next(batch_gradients(network, weights, inputs))
    return {name: gradient.abs() for name, gradient in zip(weights, gradients, strict=True)}
