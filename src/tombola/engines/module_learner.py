"""A learner for any module, one run at a time: plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.engines.augmentation import Augmentation
from tombola.engines.history import Evaluation
from tombola.engines.optimizers import Rates, normalising, optimizer
from tombola.engines.precision import at_least_single, autocast
from tombola.engines.training_loop import Part
from tombola.engines.training_state import (
    entries,
    load_optimizer_state,
    optimizer_state,
    restore_training_state,
    training_state,
)
from tombola.pruning.mask import Mask, State
from tombola.runs.run import Run
from tombola.zoo.datasets.split import Split

EVALUATION_BATCH = 5000
"""How many examples are evaluated at once, at most."""

EVALUATION_NUMBERS = {"cpu": 2**22, "cuda": 2**28}
"""How many numbers a layer may give for all of them together: it bounds memory, and on a CPU stays near caches."""


class ModuleLearner:
    """Trains `network`, which is on `device` already, its pruned weights zero; `mask` is that of `run` unless it is
    given."""

    def __init__(
        self, network: nn.Module, run: Run, split: Split, device: torch.device, mask: Mask | None = None
    ) -> None:
        self.network = network
        self.device = device
        self.precision = run.training.precision
        self.split = split.to(device)
        self.parameters: State = dict(network.named_parameters())
        self.optimizer = optimizer(self.parameters, normalising(network), run.training)
        self.rates = Rates(self.optimizer, run.training)
        self.augmenting = Augmentation.of([run], [split], device)
        self.at_once = evaluated_at_once(network, self.split.test.x[:1])
        self.loss_sum = torch.zeros((), device=device)
        self.best = self._copy()
        self.masked = [
            (self.parameters[name], kept.to(device, self.parameters[name].dtype))
            for name, kept in (run.mask if mask is None else mask).items()
            if not kept.all()
        ]

    def train(self, orders: Tensor, first: int) -> None:
        """See `Learner`; one run."""
        (order,) = orders.to(self.device)
        self.network.train()
        rates = self.rates.of(first, len(order))
        choices = self.augmenting.choices(first, len(order)) if self.augmenting else None
        for index, batch in enumerate(order):
            self.rates.set(rates[index])
            x, y = self.split.train[batch]
            if self.augmenting and choices is not None:
                x = self.augmenting(x, choices[index])
            self.step(x, y)

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
        return at_least_single(logits)

    def take_losses(self) -> list[float]:
        """See `Learner`."""
        loss = self.loss_sum.item()
        self.loss_sum.zero_()
        return [loss]

    @torch.no_grad()
    def evaluate(self, part: Part, best: bool = False) -> list[Evaluation]:
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
        for rows in torch.split(torch.arange(len(examples), device=self.device), self.at_once):
            x, y = examples[rows]
            logits = self._logits(x)
            loss += functional.cross_entropy(logits, y, reduction="sum")
            correct += (logits.argmax(1) == y).sum()
        return [Evaluation(loss.item() / len(examples), correct.item() / len(examples))]

    def keep(self, better: Sequence[bool]) -> None:
        """See `Learner`."""
        assert all(better)
        self.best = self._copy()

    def weights(self) -> list[State]:
        """See `Learner`."""
        return [{name: tensor.cpu() for name, tensor in self._copy().items()}]

    def optimizers(self) -> list[State]:
        """See `Learner`."""
        return [optimizer_state(self.optimizer, self.parameters)]

    def load_optimizers(self, states: Sequence[State]) -> None:
        """See `Learner`."""
        (state,) = states
        load_optimizer_state(self.optimizer, self.parameters, state)

    def _copy(self) -> State:
        return {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def state(self) -> dict[str, Tensor]:
        """See `Learner`."""
        tensors = {f"network/{name}": tensor for name, tensor in self._copy().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        return tensors | {"loss": self.loss_sum} | training_state(self.optimizer, self.device)

    def load(self, state: dict[str, Tensor]) -> None:
        """See `Learner`."""
        self.network.load_state_dict(entries(state, "network"))
        self.best = {name: tensor.to(self.device) for name, tensor in entries(state, "best").items()}
        self.loss_sum = state["loss"].to(self.device)
        restore_training_state(state, self.optimizer, self.device)


@torch.no_grad()
def evaluated_at_once(network: nn.Module, example: Tensor) -> int:
    """How many examples like this one are evaluated at once, by the largest output of a layer."""
    device = example.device
    sizes = [1]

    def note(module: nn.Module, arguments: object, output: object) -> None:  # noqa: ARG001
        if isinstance(output, Tensor):
            sizes.append(output.numel())

    handles = [module.register_forward_hook(note) for module in network.modules()]
    training = network.training
    network.eval()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            network(example)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return max(1, min(EVALUATION_BATCH, EVALUATION_NUMBERS[device.type] // max(sizes)))
