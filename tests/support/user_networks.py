"""Networks as users write them: with attributes, inputs and outputs of many kinds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Features(nn.Module):
    """Keeps its feature map in an attribute, and all of them in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(10, 64)
        self.output = nn.Linear(64, 2)
        self.features: Tensor | None = None
        self.all_features: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.features = self.hidden(x).relu()
        self.all_features.append(self.features)
        out: Tensor = self.output(self.features)
        return out


class Pair(nn.Module):
    """Takes two inputs and options, and calls its layers by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.output = nn.Linear(10, 64), nn.Linear(6, 64), nn.Linear(64, 2)

    def forward(
        self, x: Tensor, y: Tensor | None = None, scale: float = 1.0, *, mask: Tensor | None = None
    ) -> Tensor:
        hidden = functional.relu(input=self.one(input=x))
        if y is not None:
            hidden = hidden + functional.relu(input=self.other(input=y))
        out: Tensor = self.output(input=hidden) * scale
        return out if mask is None else out * mask


class Tokens(nn.Module):
    """Classifies sequences of tokens; returns a dict with a loss if it `gives_loss`, otherwise scores."""

    def __init__(self, gives_loss: bool = False) -> None:
        super().__init__()
        self.gives_loss = gives_loss
        self.embedding, self.hidden, self.output = nn.Embedding(20, 8), nn.Linear(8, 32), nn.Linear(32, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        tokens = self.embedding(input_ids)
        if attention_mask is not None:
            tokens = tokens * attention_mask.unsqueeze(-1)
        logits = self.output(self.hidden(tokens.mean(1)).relu())
        return {"loss": logits.square().sum(), "logits": logits} if self.gives_loss else logits


class Autoencoder(nn.Module):
    """A variational autoencoder: draws a latent variable for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.mean, self.deviation = nn.Linear(10, 64), nn.Linear(64, 4), nn.Linear(64, 4)
        self.decoder, self.output = nn.Linear(4, 40), nn.Linear(40, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.encoder(x).relu()
        mean = self.mean(hidden)
        latent = mean + torch.randn_like(mean) * self.deviation(hidden).exp()
        return self.output(self.decoder(latent).relu()), mean


@torch.no_grad()
def with_dead_units(network: nn.Module, alive: int = 20) -> Any:
    """The network with the weights of all units of wide linear layers but the first `alive` set to zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear) and layer.out_features > alive:
            layer.weight[alive:] = 0
    return network
