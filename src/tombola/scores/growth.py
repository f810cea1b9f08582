"""What a weight would be worth that is not there: for masks that grow weights."""

from __future__ import annotations

import torch
from torch import Tensor

from tombola.scores.grounds import Grounds


def gradient(grounds: Grounds) -> dict[str, Tensor]:
    """|∂loss/∂w| on one batch, at pruned weights, which are zero, as at others (RigL: Evci et al. 2020, section 3).

    Of the network in evaluation mode: nothing is dropped, and a batch does not normalise itself; in the paper's code
    the gradient is the training step's own. Raises `InputError` where network or examples are not known.
    """
    network = grounds.network()
    parameters = dict(network.named_parameters())
    loss = grounds.loss(network, next(iter(grounds.batches())))
    found = torch.autograd.grad(loss, [parameters[name] for name in grounds.mask], materialize_grads=True)
    return {name: slope.abs() for name, slope in zip(grounds.mask, found, strict=True)}
