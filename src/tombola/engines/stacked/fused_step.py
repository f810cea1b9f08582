"""An iteration of a stack of linear layers in few kernels: each tensor is read and written about once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, optim

from tombola.engines.stacked.optimizer_rule import Rule, UpdatedParameter, count_step
from tombola.engines.stacked.stack import Stack
from tombola.engines.stacked.triton_kernels.cross_entropy import cross_entropy
from tombola.engines.stacked.triton_kernels.product import input_gradient, outputs
from tombola.engines.stacked.triton_kernels.weight_update import weight_update
from tombola.pruning.mask import State
from tombola.runs.run import Precision


class FusedStep:
    """Trains the networks of many runs, which are stacks of linear layers without dropout, for one iteration a call.

    `parameters`: float32, weights of shape (runs, outputs, inputs), transposed in memory or not, and biases (runs,
    outputs), by the names of `stack`; `pruned`: which of the weights of some layers stay zero, bool, laid out like
    the weights. `optimizer` keeps its state as in its own steps.
    """

    def __init__(
        self,
        stack: Stack,
        parameters: State,
        pruned: Mapping[str, Tensor],
        optimizer: optim.Optimizer,
        batch_size: int,
        precision: Precision,
    ) -> None:
        self.layers = stack.layers
        self.parameters = parameters
        self.pruned = pruned
        self.optimizer = optimizer
        self.precision = "tf32" if precision == "tf32" else "ieee"
        first = parameters[self.layers[0].weight]
        shapes = [(len(first), batch_size, layer.outputs) for layer in self.layers]
        self.outputs = [torch.empty(shape, device=first.device) for shape in shapes]
        self.gradients = [torch.empty(shape, device=first.device) for shape in shapes[:-1]]
        """Of the loss by `outputs`; that of the last replaces the logits."""

    @torch.no_grad()
    def __call__(self, x: Tensor, rows: Tensor | None, labels: Tensor, loss_sums: Tensor) -> None:
        """Update parameters and optimizer state, and add the mean loss of each run to `loss_sums`, (runs,).

        `x`: inputs, float32, of shape (runs, batch, *inputs), or with `rows`, int64 of shape (runs, batch), the rows
        of inputs of shape (any, *inputs); `labels`: int64, (runs, batch).
        """
        with torch.cuda.device_of(loss_sums):  # type: ignore[no-untyped-call]
            (rule,) = map(Rule.of, self.optimizer.param_groups)
            if rows is not None:
                rows = rows.contiguous()
            x = x.flatten(2 if rows is None else 1).contiguous()
            self._forward(x, rows)
            cross_entropy(self.outputs[-1], labels.contiguous(), loss_sums)
            self._backward(x, rows, rule)

    def _forward(self, x: Tensor, rows: Tensor | None) -> None:
        for layer, y in zip(self.layers, self.outputs, strict=True):
            weight, bias = self.parameters[layer.weight], self.parameters.get(layer.bias_name)
            outputs(x, rows, weight, bias, y, layer.relu, self.precision)
            x, rows = y, None

    def _backward(self, x: Tensor, rows: Tensor | None, rule: Rule) -> None:
        """From the last layer to the first: the gradient of a layer's inputs needs its weights before the step."""
        weights = [self._updated(layer.weight, rule) for layer in self.layers]
        biases = [self._updated(layer.bias_name, rule) if layer.bias else None for layer in self.layers]
        count_step([*weights, *(bias for bias in biases if bias)])
        dy = self.outputs[-1]
        for index in reversed(range(1, len(self.layers))):
            y, dx = self.outputs[index - 1], self.gradients[index - 1]
            gate = y if self.layers[index - 1].relu else None
            input_gradient(dy, weights[index].tensor, gate, dx, self.precision)
            weight_update(y, None, dy, weights[index], biases[index], rule, self.precision)
            dy = dx
        weight_update(x, rows, dy, weights[0], biases[0], rule, self.precision)

    def _updated(self, name: str, rule: Rule) -> UpdatedParameter:
        return UpdatedParameter.of(self.parameters[name], self.optimizer, rule, self.pruned.get(name))
