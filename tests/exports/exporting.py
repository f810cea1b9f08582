"""What the tests of exports share: small sparse networks of every kind of layer that exports look at."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tombola.pruning.mask import Mask, prunable


class Residual(nn.Module):
    """A block with a shortcut around it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm(self.conv(x)))


def mlp() -> nn.Module:
    layers = nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)
    return nn.Sequential(*layers)


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, stride=2, padding="valid", dilation=2),
        nn.BatchNorm2d(8),
        nn.GELU(),
        nn.Conv2d(8, 8, (3, 1), padding="same", groups=4, bias=False),
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(8, 4, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def residual() -> nn.Module:
    stem = nn.Conv2d(1, 4, 3, padding=1)
    return nn.Sequential(stem, Residual(4), Residual(4), nn.Flatten(), nn.Linear(64, 3))


KINDS = {"mlp": (mlp, (4, 4)), "convolutions": (convolutions, (2, 11, 11)), "residual": (residual, (1, 4, 4))}
"""Of each, what makes it and the shape of one input."""


def sparse(kind: str, density: float = 0.3, seed: int = 0, batch: int = 3) -> tuple[nn.Module, Tensor]:
    """A network of `KINDS` in training mode, its state random, so many of its weights left; and a batch of inputs."""
    generator = torch.Generator().manual_seed(seed)
    make, shape = KINDS[kind]
    network = make()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.normal_(generator=generator)
                if name.endswith("running_var"):
                    tensor.abs_()
    parameters = dict(network.named_parameters())
    left = {name: torch.rand(parameters[name].shape, generator=generator) < density for name in prunable(network)}
    Mask(left).apply_(network)
    return network, torch.randn(batch, *shape, generator=generator)
