"""The size of a stored outcome, known before its run is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping

from torch import Tensor

from tombola.pruning.mask import Mask, State
from tombola.runs.run import Run

ABOUT = 1400
"""Bytes of the measures, names and digest in a file's header, approximately."""
PER_TENSOR = 90
"""Bytes of a tensor's entry in the header, approximately."""
CURVES = 4
"""Of a run without a test curve: iterations, two losses and an accuracy; 8 bytes for each evaluation."""


def outcome_bytes(run: Run, state: Mapping[str, Tensor]) -> int:
    """The size of the file of a run's outcome, approximately. `state` is the state of its network, of which only the
    shapes matter."""
    tensors = {} if run.interpolates else dict(state)
    size, entries = _packed(tensors, run.mask)
    if run.keeps_optimizer:
        of_parameters = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
        copies = 1 if run.training.optimizer == "sgd" and run.training.momentum else 0
        copies = (2 if run.training.optimizer != "sgd" else copies) + bool(run.training.ema)
        optimizer, entries_of_each = _packed(of_parameters, run.mask)
        size, entries = size + copies * optimizer, entries + copies * entries_of_each
    every = run.training.evaluate_every.iterations
    curves = CURVES + 2 * run.training.test_curve
    evaluations = -(-(run.last - run.begin) // every) or 1
    described = len(json.dumps(run.description))
    return size + 8 * curves * evaluations + PER_TENSOR * (entries + curves) + described + ABOUT


def _packed(state: Mapping[str, Tensor], mask: Mask) -> tuple[int, int]:
    """Bytes and number of entries of a state as in `tombola.runs.sparse_state`: of masked parameters one bit for each
    weight, and the kept ones."""
    size = entries = 0
    for name, tensor in state.items():
        kept = mask.get(name)
        if kept is None:
            size, entries = size + tensor.nbytes, entries + 1
        else:
            size += tensor.itemsize * int(kept.sum()) + -(-kept.numel() // 8) + 8 * kept.dim()
            entries += 3
    return size, entries


def training_bytes(state: State) -> int:
    """The memory of one training besides examples and activations, approximately: weights, gradients, two moments,
    the best weights, and as much again while they are copied."""
    return 6 * sum(tensor.nbytes for tensor in state.values())
