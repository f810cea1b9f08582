"""N:M sparsity: of every m consecutive weights along the input, n are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tombola.pruning.layers import Kind, Layer, by_layer
from tombola.pruning.mask import Mask
from tombola.pruning.ranking import check_no_nan, keep_best
from tombola.pruning.scopes import Counts, Group, Scope, weights_left
from tombola.pruning.structures.structure import SingleWeights
from tombola.utils.errors import InputError

_INPUT_AXIS: dict[Kind, int] = {"linear": 1, "convolution": 1, "projection": 1, "recurrent": 1, "Conv1D": 0}
"""The axis of inputs, of layers that can have such a pattern."""


@dataclass(frozen=True)
class NMPattern(SingleWeights):
    """Keeps the n best of every m consecutive weights of an output, along the input (Mishra et al. 2021, section 2;
    2:4 is the pattern of sparse tensor cores). In a convolution these belong to m consecutive input channels at one
    position of the kernel, as in the paper's code (NVIDIA's ASP).
    """

    n: int
    m: int
    layers: Mapping[str, Layer]

    def units_left(self, mask: Mask, scope: Scope) -> dict[Group, int]:
        """Raises `InputError` for a layer whose inputs are not a multiple of m."""
        for layer in (self.layers[name] for group in scope.groups for name in group):
            advice = f'leave_out = ["{layer.label}"] keeps it dense'
            if layer.kind not in _INPUT_AXIS:
                raise InputError(f"structure: {self} does not support {layer.label}, of kind {layer.kind}; {advice}")
            inputs = layer.shape[_INPUT_AXIS[layer.kind]]  # of a convolution: channels of a group
            if inputs % self.m:
                what = f"{self.m} {'inputs' if len(layer.shape) == 2 else 'input channels'}"
                raise InputError(
                    f"structure: {self} needs a multiple of {what}, {layer.label} has {inputs}; {advice}"
                )
        return weights_left(mask, scope.groups)

    def keep_best(self, scores: Mapping[str, Tensor], mask: Mask, counts: Counts) -> Mask:
        """Also raises `InputError` if `counts` would keep fewer than n of every m."""
        bounded, kept = by_layer(scores), mask.layers
        for group, count in counts.items():
            least = 0
            for name in group:
                found = bounded[name].detach().cpu()
                check_no_nan(found[kept[name]], (name,))
                best = self._best_of_m(found, kept[name], _INPUT_AXIS[self.layers[name].kind])
                bounded[name] = found.masked_fill(best, torch.inf)
                least += int(best.sum())
            if count < least:
                share = self.n / self.m
                raise InputError(f"structure: {self} cannot keep less than {share:g} of the weights of a layer")
        return keep_best(bounded, mask, counts)

    def _best_of_m(self, scores: Tensor, left: Tensor, axis: int) -> Tensor:
        """Which weights are among the n best of their m; bool. Fewer if fewer are left."""
        inputs_last = scores.masked_fill(~left, -torch.inf).movedim(axis, -1)
        worth = inputs_last.reshape(-1, self.m)
        best = worth.argsort(dim=1, stable=True)[:, self.m - self.n :]  # the first of equals go first
        stays = torch.zeros_like(worth, dtype=torch.bool).scatter_(1, best, True)
        return stays.view(inputs_last.shape).movedim(-1, axis) & left

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"
