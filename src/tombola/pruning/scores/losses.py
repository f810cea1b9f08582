"""Losses: what scores differentiate, one function each.

To add one, write it here and name it in `LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.utils.errors import InputError, unknown

Loss = Callable[[nn.Module, Any], Tensor]
"""(a network, a batch) -> the mean loss, a scalar."""

_OWN = "give a function loss(network, batch)"
_OTHER = 'give loss="mse", or a function loss(network, batch)'
IGNORED = -100
"""The label of what `cross_entropy` passes over, as in torch."""


def cross_entropy(network: nn.Module, batch: Any) -> Tensor:
    """The loss of a classifier on a batch `(x, y)`; y has labels, or probabilities of the shape of the outputs.

    Raises `InputError` for batches that are not pairs, and for outputs and labels that are no classification.
    """
    outputs, y = _outputs_and_targets(network, batch)
    shape = tuple(outputs.shape)
    if not shape or shape[_class_dim(shape)] < 2:
        raise InputError(f"model: outputs of shape {shape} have no classes to choose from: {_OTHER}")
    if y.is_floating_point():
        _check_probabilities(y, shape)
        return functional.cross_entropy(outputs, y.to(outputs.dtype))
    labels = y.long()
    _check_labels(labels, shape)
    return functional.cross_entropy(outputs, labels)


def mse(network: nn.Module, batch: Any) -> Tensor:
    """The mean squared error on a batch `(x, y)`; y has the shape of the outputs, but for dimensions of size 1.

    Raises `InputError` for batches that are not pairs, and for other shapes.
    """
    outputs, y = _outputs_and_targets(network, batch)
    if outputs.squeeze().shape != y.squeeze().shape:
        raise InputError(
            f"data: y has shape {tuple(y.shape)}; should have that of the outputs, {tuple(outputs.shape)}, or {_OWN}"
        )
    return functional.mse_loss(outputs, y.reshape(outputs.shape).to(outputs.dtype))


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": mse}


def loss_function(loss: str | Loss) -> Loss:
    """The function, or that of this name. Raises `InputError` for an unknown name."""
    if not isinstance(loss, str):
        if not callable(loss):
            raise InputError(f"loss: should be a name or a function loss(network, batch), not {type(loss).__name__}")
        return loss
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    return LOSSES[loss]


def _outputs_and_targets(network: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    kind = type(batch).__name__
    if not isinstance(batch, list | tuple):
        raise InputError(f"data: should have batches (x, y), not {kind}; for others {_OWN}")
    if len(batch) != 2:
        raise InputError(f"data: should have batches (x, y), not {kind} of {len(batch)}; for others {_OWN}")
    x, y = batch
    if not isinstance(y, Tensor):
        raise InputError(
            f"data: should have batches (x, y) with a tensor y, not {type(y).__name__}; for others {_OWN}"
        )
    outputs: Any = network(x)
    if not isinstance(outputs, Tensor):
        raise InputError(f"model: returns {type(outputs).__name__}, not a tensor: {_OWN}")
    return outputs, y


def _class_dim(shape: tuple[int, ...]) -> int:
    return 0 if len(shape) == 1 else 1  # without a batch, classes come first


def _check_probabilities(y: Tensor, shape: tuple[int, ...]) -> None:
    """Raises `InputError` unless y has a distribution over the classes for each example."""
    valid = len(shape) > 1 and tuple(y.shape) == shape and not bool((y < 0).any())
    if not valid or not torch.allclose(y.sum(1, dtype=torch.float32), torch.ones(()).to(y.device), atol=0.01):
        raise InputError(
            f"data: y has floating-point numbers of shape {tuple(y.shape)}; a classifier with outputs of shape "
            f"{shape} needs labels, or probabilities of that shape: {_OTHER}"
        )


def _check_labels(labels: Tensor, shape: tuple[int, ...]) -> None:
    """Raises `InputError` unless every example, at every place, has the number of a class."""
    dim = _class_dim(shape)
    expected = (*shape[:dim], *shape[dim + 1 :])
    if tuple(labels.shape) != expected:
        raise InputError(
            f"data: labels y have shape {tuple(labels.shape)}; outputs of shape {shape} need {expected}, or {_OWN}"
        )
    invalid = labels[((labels < 0) | (labels >= shape[dim])) & (labels != IGNORED)]
    if invalid.numel():
        raise InputError(f"data: label {int(invalid[0])} is not one of the {shape[dim]} classes of the outputs")
