"""Sign-In: each weight is the product of two numbers, which lets it change its sign more easily."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SignIn(nn.Module):
    """The weight is m · w, and both factors are trained (Gadhikar et al. 2025, "Sign-In to the Lottery:
    Reparameterized Sparse Training", arXiv 2504.12801).

    At the start, m · w is the weight itself, and m² - w² = `scale` with m > 0. Gradient flow without weight decay
    conserves m² - w²; a weight then moves by sqrt(`scale`² + 4 · weight²) times its gradient, so that small weights
    do not get stuck at zero. SGD conserves it only approximately. The paper restores it by rescaling the factors
    every few epochs; this does not.
    """

    def __init__(self, weight: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.m = nn.Parameter(self._balanced(weight))

    def forward(self, weight: Tensor) -> Tensor:
        return self.m * weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The factor w of this weight. Assigning a weight also balances m."""
        with torch.no_grad():
            self.m.copy_(self._balanced(weight))
            return weight / self.m

    def _balanced(self, weight: Tensor) -> Tensor:
        weight = weight.detach()
        return ((self.scale + (self.scale**2 + 4 * weight.square()).sqrt()) / 2).sqrt()
