"""Scores that look at gradients of the loss on examples.

Gradients are those of the network in evaluation mode, so nothing is drawn and a batch does not normalise itself,
unless batch norm has not seen one yet; see `ScoreInputs.network`. A batch weighs as much as any other, whatever its
size. All raise `InputError` where network or examples are not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tombola.pruning.scores.inputs import ScoreInputs


def snip(grounds: ScoreInputs) -> dict[str, Tensor]:
    """|g w|, g the mean gradient over the batches: how sensitive the loss is to each connection (SNIP, Lee et al.
    2019, section 4.1). The paper divides by the sum over all weights, which changes no order.

    The sensitivity is that of the weights given: those at initialisation make it the paper's.
    """
    network, weights = with_gradients(grounds)
    gradients = _mean(gradients_of(network, weights, grounds, grounds.batches()))
    return {n: (g * w.detach()).abs() for g, (n, w) in zip(gradients, weights.items(), strict=True)}


def taylor(grounds: ScoreInputs) -> dict[str, Tensor]:
    """The mean over batches of (g w)², g a batch's gradient: the squared change of the loss, to first order, when a
    weight is removed (Molchanov et al. 2019, section 3.1; averaged over batches as in section 3.2)."""
    network, weights = with_gradients(grounds)
    squares = _mean(
        [g.square() for g in batch] for batch in gradients_of(network, weights, grounds, grounds.batches())
    )
    return {n: s * _wide(w.detach()).square() for s, (n, w) in zip(squares, weights.items(), strict=True)}


def fisher(grounds: ScoreInputs) -> dict[str, Tensor]:
    """w² F / 2, F the mean over examples of g², the diagonal of the empirical Fisher information: what the loss rises
    by, to second order, when a weight of a trained network is removed (Theis et al. 2018, section 2.1).

    Gradients are of single examples, which takes a backward pass for each. That of a batch is a mean already: its
    square is the smaller the larger the batch, and `taylor` is what it would give. All batch norm is in evaluation
    mode: an example by itself has no statistics.
    """
    network, weights = with_gradients(grounds)
    network.eval()
    examples = (example for batch in grounds.batches() for example in _examples(batch))
    squares = _mean([g.square() for g in one] for one in gradients_of(network, weights, grounds, examples))
    return {n: s * _wide(w.detach()).square() / 2 for s, (n, w) in zip(squares, weights.items(), strict=True)}


def grasp(grounds: ScoreInputs) -> dict[str, Tensor]:
    """w (H g), with gradient g and Hessian H of the mean loss over all batches (GraSP, Wang et al. 2020, section 4).

    The paper scores S = -w (H g), half the change of g·g when a weight is removed, and removes the *highest*: those
    whose removal lets more gradient flow. Here low scores go first, so this is -S. The loss is taken as given; the
    paper's experiments divide logits by a temperature of 200, which a `loss` of one's own can do. Batches are gone
    through twice.
    """
    network, weights = with_gradients(grounds)
    parameters = list(weights.values())
    means = _mean(gradients_of(network, weights, grounds, grounds.batches()))
    gradient = [mean.to(weight.dtype) for mean, weight in zip(means, parameters, strict=True)]

    def products() -> Iterator[Sequence[Tensor]]:
        for batch in grounds.batches():
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
                first = torch.autograd.grad(
                    grounds.loss(network, batch), parameters, create_graph=True, materialize_grads=True
                )
                flow = torch.stack([(g * mean).sum() for g, mean in zip(first, gradient, strict=True)]).sum()
                if flow.requires_grad:
                    yield torch.autograd.grad(flow, parameters, materialize_grads=True)
                else:  # a loss that is linear in the weights
                    yield [torch.zeros_like(weight) for weight in parameters]

    return {n: p * w.detach() for p, (n, w) in zip(_mean(products()), weights.items(), strict=True)}


def with_gradients(grounds: ScoreInputs) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network of the score's own and those of its parameters that are scored; only these have gradients."""
    network = grounds.network().requires_grad_(False)
    parameters = dict(network.named_parameters())
    return network, {name: parameters[name].requires_grad_() for name in grounds.weights}


def gradients_of(
    network: nn.Module, weights: dict[str, Tensor], grounds: ScoreInputs, batches: Any
) -> Iterator[Sequence[Tensor]]:
    """The gradient of the loss of each batch; zero for weights it does not depend on."""
    for batch in batches:
        with torch.enable_grad():
            gradients = torch.autograd.grad(
                grounds.loss(network, batch), list(weights.values()), materialize_grads=True
            )
        yield [_wide(gradient) for gradient in gradients]


def _mean(terms: Any) -> list[Tensor]:
    """The mean of lists of tensors, term by term."""
    total: list[Tensor] = []
    count = 0
    for count, term in enumerate(terms, start=1):  # noqa: B007
        wide = [_wide(tensor.detach()) for tensor in term]
        total = wide if not total else [a + b for a, b in zip(total, wide, strict=True)]
    return [tensor / count for tensor in total]


def _wide(tensor: Tensor) -> Tensor:
    """In float32 at least: squares of half-precision gradients would vanish."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _examples(batch: Any) -> Iterator[Any]:
    """The examples of a batch, as batches of one: every tensor in it cut along its first dimension."""
    for index in range(_length(batch)):
        yield _cut(batch, index)


def _length(batch: Any) -> int:
    """How many examples a batch has: the length of the first tensor in it."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 0
    if hasattr(batch, "values"):
        batch = list(batch.values())
    return next(filter(None, map(_length, batch)), 0) if isinstance(batch, list | tuple) else 0


def _cut(batch: Any, index: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[index : index + 1] if batch.dim() else batch
    if hasattr(batch, "items"):
        return {key: _cut(part, index) for key, part in batch.items()}
    return type(batch)(_cut(part, index) for part in batch) if isinstance(batch, list | tuple) else batch
