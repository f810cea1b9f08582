"""What users would run instead: good hand-written training loops in PyTorch, plain, fused or compiled."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.engines.augmentation import Augmentation
from tombola.engines.eager import evaluation_batch_size
from tombola.engines.optimizers import learning_rates, set_learning_rate
from tombola.runs.initial_state import masked_network
from tombola.runs.run import Run
from tombola.zoo.datasets.example_set import ExampleSet
from tombola.zoo.datasets.split import Split

CPU = torch.device("cpu")


def whole(examples: ExampleSet) -> tuple[Tensor, Tensor]:
    """All inputs and labels."""
    return examples[torch.arange(len(examples))]


def channels_last(x: Tensor) -> Tensor:
    """Images in the layout in which convolutions are faster; anything else as it is."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


class Loop:
    """Trains on `x` and `y`, which are in memory, from the weights of `run`. Masks are multiplied after each step.

    `fused` is that of the optimizer; `compiled` is `torch.compile` of the network with its loss. `x` and `y` are the
    training examples of `split`, in its order, which several loops can share.
    """

    def __init__(
        self, run: Run, split: Split, x: Tensor, y: Tensor, fused: bool = True, compiled: bool = False
    ) -> None:
        self.x, self.y, self.training = x, y, run.training
        self.network = masked_network(run)
        if x.ndim == 4:
            self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = _optimizer(self.network, run, fused)
        self.augmentation = Augmentation.of([run], [split], CPU)
        parameters = dict(self.network.named_parameters())
        self.masked = [
            (parameters[name], channels_last(kept.float())) for name, kept in run.mask.items() if not kept.all()
        ]
        self.loss: Any = torch.compile(self._loss) if compiled else self._loss
        self.losses = torch.zeros(())

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(self.network(x), y)

    def train(self, orders: Tensor, first: int) -> None:
        """One step for each batch; see `Trainer`."""
        (batches,) = orders
        rates = learning_rates(self.training, first, len(batches)).tolist()
        choices = self.augmentation.choices(first, len(batches)) if self.augmentation else None
        for index, (batch, rate) in enumerate(zip(batches, rates, strict=True)):
            set_learning_rate(self.optimizer, rate)
            x, y = self.x[batch], self.y[batch]
            if self.augmentation and choices is not None:
                x = self.augmentation(x, choices[index])
            loss = self.loss(channels_last(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            with torch.no_grad():
                for weight, kept in self.masked:
                    weight.mul_(kept)
            self.losses += loss.detach()

    def take_losses(self) -> list[float]:
        """The sum of the losses since the last call."""
        total = self.losses.item()
        self.losses.zero_()
        return [total]

    def copied_weights(self) -> dict[str, Tensor]:
        """The current weights and statistics of the network."""
        return {name: tensor.clone() for name, tensor in self.network.state_dict().items()}

    @torch.no_grad()
    def score(self, x: Tensor, y: Tensor) -> tuple[float, float]:
        """Loss and accuracy."""
        self.network.eval()
        size = evaluation_batch_size(self.network, x[:1])
        logits = torch.cat([self.network(channels_last(part)) for part in torch.split(x, size)])
        self.network.train()
        return functional.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()


def _optimizer(network: nn.Module, run: Run, fused: bool) -> torch.optim.Optimizer:
    training, parameters = run.training, network.parameters()
    if training.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=training.lr, weight_decay=training.weight_decay, fused=fused)
    return torch.optim.SGD(
        parameters,
        lr=training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        nesterov=training.nesterov,
        fused=fused,
    )
