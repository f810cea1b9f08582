"""What a weight would be worth that is not there: for masks that grow weights."""

from __future__ import annotations

from torch import Tensor

from tombola.pruning.scores.gradients import gradients_of, with_gradients
from tombola.pruning.scores.inputs import ScoreInputs


def gradient(grounds: ScoreInputs) -> dict[str, Tensor]:
    """|∂loss/∂w| on one batch, at pruned weights, which are zero, as at others (RigL: Evci et al. 2020, section 3).

    Of the network as `ScoreInputs.network` has it: nothing is dropped, and a batch does not normalise itself; in the
    paper's code the gradient is the training step's own. Raises `InputError` where network or examples are not known.
    """
    network, weights = with_gradients(grounds)
    slopes = next(gradients_of(network, weights, grounds, grounds.batches()))
    return {name: slope.abs() for name, slope in zip(weights, slopes, strict=True)}
