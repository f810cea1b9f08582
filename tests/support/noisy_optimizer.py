"""An optimizer that draws random numbers."""

from __future__ import annotations

import torch
from torch import optim


class Noisy(optim.SGD):
    """Adds noise to the weights."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(0.01 * torch.randn_like(parameter))
