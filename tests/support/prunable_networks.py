"""Small networks of every kind of layer that can be pruned."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Recurrent(nn.Module):
    """An LSTM over sequences of three numbers, and a classifier."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, **options: Any) -> None:
        super().__init__()
        self.rnn = kind(3, 4, batch_first=True, **options)  # type: ignore[call-arg]
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.rnn(x)[0][:, -1])
        return logits


class Transformer(nn.Module):
    """An encoder of token ids whose head is tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(self.embedding(tokens)))
        return logits


class Experts(nn.Module):
    """A mixture of three experts, stacked, behind a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 5, 4))
        self.gate = nn.Linear(4, 3)
        self.experts = nn.Parameter(torch.randn(3, 4, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.position
        mixed = torch.einsum("bte,btd,edh->bth", self.gate(x).softmax(-1), x, self.experts)
        logits: Tensor = self.head(mixed.mean(1))
        return logits


class GraphConvolution(nn.Module):
    """Two graph convolutions, of plain matrices [in, out]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(5, 8))
        self.second = nn.Parameter(torch.randn(8, 3))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        return adjacency @ (functional.relu(adjacency @ (x @ self.first)) @ self.second) + self.bias


class ActorCritic(nn.Module):
    """A policy head and a value head, both defined before the body."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Linear(16, 6)
        self.value = nn.Linear(16, 1)
        self.body = nn.Sequential(nn.Linear(4, 16), nn.ReLU())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x)
        return self.policy(hidden).log_softmax(-1), self.value(hidden)


def tiny_gpt2() -> nn.Module:
    """A GPT-2 of one block, with Hugging Face's `Conv1D`, and a head tied to the embedding."""
    from transformers import GPT2Config, GPT2LMHeadModel

    options = {"vocab_size": 20, "n_positions": 8, "n_embd": 16, "n_layer": 1, "n_head": 2}
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    model: nn.Module = GPT2LMHeadModel(GPT2Config(**options, **dropout, bos_token_id=0, eos_token_id=0))
    return model
