"""Scores that need gradients of the loss on examples.

The network is in the mode of `ScoreInputs.network`. All batches have equal weight, whatever their size. All scores
raise `InputError` if the network or examples are missing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tombola.pruning.scores.inputs import ScoreInputs
from tombola.utils.errors import InputError


def snip(inputs: ScoreInputs) -> dict[str, Tensor]:
    """|g w|, with g the mean gradient over batches: the sensitivity of the loss to each connection (SNIP, Lee et al.
    2019, section 4.1). The paper also divides by the sum over all weights, which does not change the order."""
    network, weights = network_with_gradients(inputs)
    gradients = _mean(batch_gradients(network, weights, inputs))
    return {n: (g * w.detach()).abs() for g, (n, w) in zip(gradients, weights.items(), strict=True)}


def taylor(inputs: ScoreInputs) -> dict[str, Tensor]:
    """The mean over batches of (g w)², g the gradient of a batch: the squared change of the loss, to first order, if
    a weight is removed (Molchanov et al. 2019, section 3.1; averaged over batches as in section 3.2)."""
    network, weights = network_with_gradients(inputs)
    squares = _mean([g.square() for g in batch] for batch in batch_gradients(network, weights, inputs))
    return {n: s * _as_float32(w.detach()).square() for s, (n, w) in zip(squares, weights.items(), strict=True)}


def fisher(inputs: ScoreInputs) -> dict[str, Tensor]:
    """w² F / 2, F the mean over examples of g², the diagonal of the empirical Fisher information: the increase of the
    loss, to second order, when a weight of a trained network is removed (Theis et al. 2018, section 2.1).

    This takes a backward pass for each example. All batch norm is in evaluation mode, as a single example has no
    batch statistics.
    """
    network, weights = network_with_gradients(inputs)
    network.eval()
    examples = (example for batch in inputs.batches() for example in _examples(batch))
    squares = _mean([g.square() for g in one] for one in batch_gradients(network, weights, inputs, examples))
    return {n: s * _as_float32(w.detach()).square() / 2 for s, (n, w) in zip(squares, weights.items(), strict=True)}


def grasp(inputs: ScoreInputs) -> dict[str, Tensor]:
    """w (H g), with gradient g and Hessian H of the mean loss over all batches (GraSP, Wang et al. 2020, section 4).

    The paper's score is S = -w (H g), half the change of g·g when a weight is removed, and removes the *highest*, to
    increase the gradient flow. Here the lowest scores are removed, so this is -S. The paper's experiments divide
    logits by a temperature of 200; a custom `loss` can do the same. Iterates over the batches twice.
    """
    network, weights = network_with_gradients(inputs)
    parameters = list(weights.values())
    means = _mean(batch_gradients(network, weights, inputs))
    gradient = [mean.to(weight.dtype) for mean, weight in zip(means, parameters, strict=True)]

    def products() -> Iterator[Sequence[Tensor]]:
        for batch in inputs.batches():
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
                loss = inputs.batch_loss(network, batch)
                gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
                flow = torch.stack([(g * mean).sum() for g, mean in zip(gradients, gradient, strict=True)]).sum()
                if flow.requires_grad:
                    yield torch.autograd.grad(flow, parameters, materialize_grads=True)
                else:  # a loss that is linear in the weights
                    yield [torch.zeros_like(weight) for weight in parameters]

    return {n: p * w.detach() for p, (n, w) in zip(_mean(products()), weights.items(), strict=True)}


def network_with_gradients(inputs: ScoreInputs) -> tuple[nn.Module, dict[str, Tensor]]:
    """A copy of the network, and its parameters that are scored; only these require gradients."""
    network = inputs.network().requires_grad_(False)
    parameters = dict(network.named_parameters())
    return network, {name: parameters[name].requires_grad_() for name in inputs.weights}


def batch_gradients(
    network: nn.Module, weights: dict[str, Tensor], inputs: ScoreInputs, batches: Any = None
) -> Iterator[Sequence[Tensor]]:
    """The gradients of the loss on each batch; zero for weights that it does not depend on."""
    for batch in inputs.batches() if batches is None else batches:
        with torch.enable_grad():
            loss = inputs.batch_loss(network, batch)
            gradients = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
        yield [_as_float32(gradient) for gradient in gradients]


def _mean(terms: Any) -> list[Tensor]:
    """The mean of lists of tensors, term by term."""
    total: list[Tensor] = []
    count = 0
    for count, term in enumerate(terms, start=1):  # noqa: B007
        wide = [_as_float32(tensor.detach()) for tensor in term]
        total = wide if not total else [a + b for a, b in zip(total, wide, strict=True)]
    return [tensor / count for tensor in total]


def _as_float32(tensor: Tensor) -> Tensor:
    """In float32 or wider: squares of half-precision gradients would underflow."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _examples(batch: Any) -> Iterator[Any]:
    """The examples of a batch, as batches of one: every tensor is sliced along its first dimension."""
    if not (size := _batch_size(batch)):
        raise InputError(
            f"data: fisher takes the examples of a batch one by one, but cannot divide {type(batch).__name__}; it "
            "should be a tensor, or a tuple, list or dict of them"
        )
    return (_example(batch, index) for index in range(size))


def _batch_size(batch: Any) -> int:
    """The length of the first tensor in the batch; 0 if there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 0
    if hasattr(batch, "values"):
        batch = list(batch.values())
    return next(filter(None, map(_batch_size, batch)), 0) if isinstance(batch, list | tuple) else 0


def _example(batch: Any, index: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[index : index + 1] if batch.dim() else batch
    if hasattr(batch, "items"):
        example = copy.copy(batch)  # of its own class, whose attributes a loss may use
        for key, part in batch.items():
            example[key] = _example(part, index)
        return example
    if not isinstance(batch, list | tuple):
        return batch
    parts = [_example(part, index) for part in batch]
    return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)  # of a namedtuple
