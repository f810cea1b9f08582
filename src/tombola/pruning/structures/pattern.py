"""N:M sparsity: of every m weights of an output along the input, n are left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from tombola.pruning.mask import Mask
from tombola.pruning.ranking import check_numbers, keep_best
from tombola.pruning.scopes import Counts, Group, Scope, weights_left
from tombola.utils.errors import InputError


@dataclass(frozen=True)
class NMPattern:
    """Of every m consecutive weights of an output, along the input, the n best stay (Mishra et al. 2021, section 2;
    2:4 is what sparse tensor cores multiply). Of a convolution they are those of m consecutive input channels at one
    place of the kernel, as in the paper's code (NVIDIA's ASP).

    On the way there, in rounds, any weight may go that is not among the n best of its m.
    """

    n: int
    m: int
    network: nn.Module

    def left(self, mask: Mask, scope: Scope) -> dict[Group, int]:
        """How many weights each group has left. Raises `InputError` for a layer that m does not divide."""
        layers = dict(self.network.named_modules())
        for name in (name for group in scope.groups for name in group):
            layer = name.removesuffix("weight").removesuffix(".")
            inputs = mask[name].shape[1]  # of a convolution: channels of a group
            if isinstance(layers[layer], _ConvTransposeNd):
                raise InputError(
                    f"structure: {self} is of inputs, and transposed {layer} has none in a row; {_out(layer)}"
                )
            if inputs % self.m:
                what = "inputs" if mask[name].dim() == 2 else "input channels"
                raise InputError(
                    f"structure: {self} needs a multiple of {self.m} {what}, {layer} has {inputs}; {_out(layer)}"
                )
        return weights_left(mask, scope.groups)

    def keep_best(self, scores: Mapping[str, Tensor], mask: Mask, counts: Counts) -> Mask:
        """See `Structure`. Raises `InputError` also where `counts` would not leave n of every m."""
        bounded = dict(scores)
        for group, count in counts.items():
            for name in group:
                check_numbers(scores[name].detach().cpu()[mask[name]], (name,))
            spared = {name: self._best(scores[name].detach().cpu(), mask[name]) for name in group}
            if count < sum(int(stays.sum()) for stays in spared.values()):
                share = self.n / self.m
                raise InputError(f"structure: {self} leaves {share:g} of the weights of every layer, and no less")
            bounded |= {
                name: scores[name].detach().cpu().masked_fill(stays, torch.inf) for name, stays in spared.items()
            }
        return keep_best(bounded, mask, counts)

    def _best(self, scores: Tensor, left: Tensor) -> Tensor:
        """Which are the n best of their m: bool; fewer where fewer are left."""
        inputs_last = scores.masked_fill(~left, -torch.inf).movedim(1, -1)
        worth = inputs_last.reshape(-1, self.m)
        best = worth.argsort(dim=1, stable=True)[:, self.m - self.n :]  # of equals, the first go first
        stays = torch.zeros_like(worth, dtype=torch.bool).scatter_(1, best, True)
        return stays.view(inputs_last.shape).movedim(-1, 1) & left

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


def _out(layer: str) -> str:
    return f'leave_out = ["{layer}"] leaves it dense'
