"""Trial: what a network computes in each way that training and evaluation use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tombola.pruning.mask import State
from tombola.utils.random_state import preserve_rng_state

OUTPUT_TOLERANCE = 1e-3
"""The norm of a difference, relative to the norm of the tensor."""
GRADIENT_TOLERANCE = 1e-2
"""The same for gradients: rounding may turn single units on or off."""
NOISE = 1e-4
"""The same, relative to all gradients: some are zero up to rounding, such as that of a bias before batch norm."""


@dataclass(frozen=True)
class Trial:
    """The outputs of a network, and its gradients by the names of parameters."""

    outputs: list[Tensor]
    """In evaluation mode without and with autograd, and in training mode."""
    gradients: State

    def difference(self, outputs: list[Tensor], gradients: Mapping[str, Tensor]) -> str | None:
        """How this trial differs from the expected `outputs` and `gradients`; None if it does not, up to rounding."""
        for mine, expected in zip(self.outputs, outputs, strict=True):
            same_type = mine.shape == expected.shape and mine.dtype == expected.dtype
            if not same_type or not _close(mine, expected, OUTPUT_TOLERANCE):
                return "its outputs differ"
        if self.gradients.keys() != gradients.keys():
            return "other parameters have gradients"
        noise = NOISE * sum(float(gradient.norm()) for gradient in gradients.values())
        for name, expected in gradients.items():
            if not _close(self.gradients[name], expected, GRADIENT_TOLERANCE, noise):
                return f"the gradient of {name} differs"
        return None


def run_trial(network: nn.Module, inputs: Tensor, gradient: Callable[[Tensor], Tensor] = torch.randn_like) -> Trial:
    """Try `network`, which changes as in a training step without an update; `gradient` gives the gradient of its
    outputs in training mode. Nothing is hooked, because modules of
    torch compute in another way with hooks. Random draws start at torch's random state, which stays as it is. Raises
    whatever the network raises."""
    with preserve_rng_state():
        network.eval()
        with torch.no_grad():
            outputs: list[Tensor] = [network(inputs)]
        outputs.append(network(inputs))
        outputs.append(network.train()(inputs))
        outputs[-1].backward(gradient(outputs[-1].detach()))  # type: ignore[no-untyped-call]
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    gradients = {name: gradient for name, gradient in found.items() if gradient is not None}
    return Trial([output.detach() for output in outputs], gradients)


def _close(mine: Tensor, expected: Tensor, tolerance: float, noise: float = 1e-6) -> bool:
    return bool((mine - expected).norm() <= tolerance * expected.norm() + noise)
