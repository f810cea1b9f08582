"""Networks of users, for images of 8 x 8 pixels in ten classes: with layers that no kernel knows, or that are called
or accessed in unusual ways."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.pruning.mask import Mask
from tombola.runs.run import Run
from tombola.zoo.models import build


class Recurrent(nn.Module):
    """Reads an image line by line."""

    def __init__(self, make: Callable[..., nn.Module], **options: Any) -> None:
        super().__init__()
        self.rnn = make(8, 6, batch_first=True, **options)
        self.output = nn.Linear(6 * (1 + options.get("bidirectional", False)), 10)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(x)
        logits: Tensor = self.output(out[:, -1])
        return logits


class Attention(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        self.output = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        keys = x[..., : self.attention.kdim]  # of another size, if its weights are to be three parameters
        out, _ = self.attention(self.inner(x), keys, x, need_weights=False)
        logits: Tensor = self.output(out.flatten(1))
        return logits


class Transformer(nn.Module):
    def __init__(self, layers: int = 1, batch_first: bool = True) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False) if layers > 1 else layer
        self.output = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.encoder(x).flatten(1))
        return logits


class TwoLayers(nn.Module):
    """Linear layers `a` (64 to 12) and `b` (12 to 10) that `function` computes with."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], bias: bool = True) -> None:
        super().__init__()
        self.function = function
        self.a, self.b = nn.Linear(64, 12, bias), nn.Linear(12, 10)
        self.extra = nn.Linear(12, 12)
        self.listed = [self.a, self.b]
        self.weights = [self.a.weight]
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x.flatten(1))


def by_keyword(net: Any, x: Tensor) -> Tensor:
    hidden = functional.gelu(net.a(input=x))
    logits: Tensor = net.b(input=net.extra(input=hidden))
    return logits


def tied(net: Any, x: Tensor) -> Tensor:
    """The weight of `a` is used by `a` and by another product."""
    logits: Tensor = net.b(net.extra(net.a(functional.linear(net.a(x), net.a.weight.t()))))
    return logits


def tied_outside(net: Any, x: Tensor) -> Tensor:
    """The same through a list that is not a module."""
    logits: Tensor = net.b(net.extra(net.a(functional.linear(net.a(x), net.weights[0].t()))))
    return logits


def from_list(net: Any, x: Tensor) -> Tensor:
    for layer in net.listed:
        x = layer(x)
    return x


def called_twice(net: Any, x: Tensor) -> Tensor:
    """On inputs of different shapes."""
    logits: Tensor = net.b(net.extra(net.extra(net.a(x)[:, None])[:, 0]))
    return logits


def metadata(net: Any, x: Tensor) -> Tensor:
    """As networks of Hugging Face and timm do, for devices and types."""
    x = x.to(net.a.weight.device, net.a.weight.dtype).view(-1, net.a.in_features)
    logits: Tensor = net.b(net.extra(net.a(x)))
    return logits


def by_class(net: Any, x: Tensor) -> Tensor:
    layers = [layer for layer in net.children() if isinstance(layer, nn.Linear)]
    logits: Tensor = layers[1](layers[2](layers[0](x)))
    return logits


def reads_in_evaluation(net: Any, x: Tensor) -> Tensor:
    if net.training or torch.is_grad_enabled():
        return by_class(net, x)
    return functional.linear(net.extra(net.a(x)), net.b.weight, net.b.bias)


def clips_its_weight(net: Any, x: Tensor) -> Tensor:
    net.a.weight.data.clamp_(-0.05, 0.05)
    return by_class(net, x)


def with_a_penalty(net: Any, x: Tensor) -> Tensor:
    """Second derivatives in the forward pass."""
    with torch.enable_grad():
        hidden = net.a(x.detach().requires_grad_())
        out = net.b(functional.silu(net.extra(hidden)))
        (slope,) = torch.autograd.grad(out.sum(), hidden, create_graph=True)
    return out + slope.square().sum(1, keepdim=True) * torch.arange(10)


def in_bfloat16(net: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        hidden = net.a(x)
    logits: Tensor = net.b(net.extra(hidden.float()))
    return logits


def dropout(net: Any, x: Tensor) -> Tensor:
    """Noise in training and in evaluation."""
    hidden = functional.dropout(net.a(x), 0.3, net.training)
    logits: Tensor = net.b(net.extra(hidden + 0.01 * torch.randn_like(hidden)))
    return logits


def mixed(net: Any, x: Tensor) -> Tensor:
    """A layer of another class in a list of its own."""
    logits: Tensor = net.scale * net.b(functional.relu(net.extra(net.a(x)) + net.listed[0](x)))
    return logits


class Experts(nn.Module):
    """Two experts in one tensor (experts, in, out), and a bilinear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 64, 12) / 8)
        self.bilinear = nn.Bilinear(12, 12, 10)
        self.line = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        one, other = torch.einsum("ni,eio->eno", x.flatten(1), self.weight)
        logits: Tensor = self.bilinear(self.line(one), other)
        return logits


class Embedded(nn.Module):
    """An embedding of grey levels, and a layer with weights (in, out) as in Hugging Face's `Conv1D`."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(17, 6)
        self.weight = nn.Parameter(torch.randn(6, 12) / 3)
        self.output = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        levels = (16 * x).long().clamp(0, 16).flatten(1)
        logits: Tensor = self.output(functional.gelu(self.embedding(levels).mean(1) @ self.weight))
        return logits


KINDS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Recurrent(nn.LSTM),
    "two bidirectional lstms": lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True),
    "gru": lambda: Recurrent(nn.GRU, bias=False),
    "rnn": lambda: Recurrent(nn.RNN),
    "attention": Attention,
    "attention to other keys": lambda: Attention(kdim=6, bias=False),
    "encoder layer": Transformer,
    "encoder": lambda: Transformer(layers=2),
    "encoder, batch second": lambda: Transformer(batch_first=False),
    "experts": Experts,
    "embedding": Embedded,
} | {
    function.__name__: functools.partial(TwoLayers, function)
    for function in (
        *(by_keyword, tied, tied_outside, from_list, called_twice, metadata, by_class, reads_in_evaluation),
        *(clips_its_weight, with_a_penalty, in_bfloat16, mixed),
    )
}


def make(kind: str) -> nn.Module:
    return functools.partial(TwoLayers, dropout)() if kind == "dropout" else KINDS[kind]()


def model(kind: str) -> dict[str, Any]:
    """The [model] of a recipe."""
    return {"name": f"{__name__}:make", "kind": kind}


def with_every_weight_masked(run: Run, density: float, seed: int = 0, biases: bool = False) -> Run:
    """`run` with a random mask of all parameters that have several axes, and of biases too."""
    generator = torch.Generator().manual_seed(seed)
    weights = {n: p for n, p in build(run.start).named_parameters() if p.dim() > 1 or (biases and p.dim() == 1)}
    return run.masked(Mask({n: torch.rand(p.shape, generator=generator) < density for n, p in weights.items()}))
