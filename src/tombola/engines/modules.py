"""A learner for any module, one run at a time: plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.engines.history import Score
from tombola.engines.optimizers import optimizer
from tombola.engines.precision import autocast
from tombola.engines.snapshots import entries, restore_surroundings, surroundings
from tombola.engines.training import Part
from tombola.mask import Mask, State
from tombola.run import Training
from tombola.zoo.data.split import Split

EVALUATION_BATCH = 5000
"""How many examples are evaluated at once; it bounds memory."""


class ModuleLearner:
    """Trains `network`, which is on `device` already, its pruned weights zero."""

    def __init__(
        self, network: nn.Module, mask: Mask, training: Training, split: Split, device: torch.device
    ) -> None:
        self.network = network
        self.device = device
        self.precision = training.precision
        self.split = split.to(device)
        self.optimizer = optimizer(network.parameters(), training)
        self.loss_sum = torch.zeros((), device=device)
        self.best = self._copy()
        parameters = dict(network.named_parameters())
        self.masked = [
            (parameters[name], kept.to(device, parameters[name].dtype))
            for name, kept in mask.items()
            if not kept.all()
        ]

    def train(self, orders: Tensor) -> None:
        """See `Learner`; one run."""
        (order,) = orders.to(self.device)
        self.network.train()
        for batch in order:
            self.step(*self.split.train[batch])

    def step(self, x: Tensor, y: Tensor) -> None:
        """One iteration."""
        loss = functional.cross_entropy(self._logits(x), y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        # Whatever momentum or weight decay did, a pruned weight is zero again before anything reads it.
        with torch.no_grad():
            for weight, kept in self.masked:
                weight.mul_(kept)
        self.loss_sum += loss.detach()

    def _logits(self, x: Tensor) -> Tensor:
        with autocast(self.precision, self.device):
            logits: Tensor = self.network(x)
        return logits.float()

    def take_losses(self) -> list[float]:
        """See `Learner`."""
        loss = self.loss_sum.item()
        self.loss_sum.zero_()
        return [loss]

    @torch.no_grad()
    def evaluate(self, part: Part, best: bool = False) -> list[Score]:
        """See `Learner`."""
        if best:
            present = self._copy()
            self.network.load_state_dict(self.best)
            scores = self.evaluate(part)
            self.network.load_state_dict(present)
            return scores
        examples = getattr(self.split, part)
        self.network.eval()
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for rows in torch.split(torch.arange(len(examples), device=self.device), EVALUATION_BATCH):
            x, y = examples[rows]
            logits = self._logits(x)
            loss += functional.cross_entropy(logits, y, reduction="sum")
            correct += (logits.argmax(1) == y).sum()
        return [Score(loss.item() / len(examples), correct.item() / len(examples))]

    def keep(self, better: Sequence[bool]) -> None:
        """See `Learner`."""
        assert all(better)
        self.best = self._copy()

    def weights(self) -> list[State]:
        """See `Learner`."""
        return [{name: tensor.cpu() for name, tensor in self._copy().items()}]

    def _copy(self) -> State:
        return {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def state(self) -> dict[str, Tensor]:
        """See `Learner`."""
        tensors = {f"network/{name}": tensor for name, tensor in self._copy().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        return tensors | {"loss": self.loss_sum} | surroundings(self.optimizer, self.device)

    def load(self, state: dict[str, Tensor]) -> None:
        """See `Learner`."""
        self.network.load_state_dict(entries(state, "network"))
        self.best = {name: tensor.to(self.device) for name, tensor in entries(state, "best").items()}
        self.loss_sum = state["loss"].to(self.device)
        restore_surroundings(state, self.optimizer, self.device)
