"""One training under way: steps, evaluations, the best weights so far, and all of it as tensors to resume from."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tombola.batches import batches
from tombola.engines.optimizers import optimizer
from tombola.mask import State
from tombola.outcome import Measures
from tombola.run import Run
from tombola.zoo.data.split import Examples, Split
from tombola.zoo.networks import build

EVALUATION_BATCH = 5000
"""How many examples are evaluated at once; it bounds memory."""

STRETCH = 1000
"""After how many iterations at most `advance` returns, so that a checkpoint can be written."""


class LiveTraining:
    """The state of `run`'s training after `iteration` iterations."""

    def __init__(self, run: Run, split: Split, device: torch.device) -> None:
        self.run = run
        self.device = device
        self.iteration = 0
        self.diverged = False
        self.best_loss = math.inf
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0
        self.loss_sum = torch.zeros((), device=device)
        """Of the training losses since the last evaluation."""
        self.train, self.validation, self.test = (
            part.to(device) for part in (split.train, split.validation, split.test)
        )
        self.network = build(run.start).to(device)
        run.mask.apply_(self.network)
        self.optimizer = optimizer(self.network.parameters(), run.training)
        self.best = self._copy()
        parameters = dict(self.network.named_parameters())
        self.masked = [
            (parameters[name], kept.to(device, parameters[name].dtype))
            for name, kept in run.mask.items()
            if not kept.all()
        ]

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train: all iterations are done, or the loss was not finite."""
        return self.diverged or self.iteration >= self.run.training.length.iterations

    def advance(self) -> None:
        """Train for a stretch, and evaluate if it is time to. Between evaluations nothing waits for the device."""
        began = time.monotonic()
        options = self.run.training
        every = options.evaluate_every.iterations
        steps = min(every - self.iteration % every, options.length.iterations - self.iteration, STRETCH)
        order = batches(self.run.seed, len(self.train), options.batch_size, self.iteration, steps).to(self.device)
        self.network.train()
        for batch in order:
            self.loss_sum += self._step(self.train.x[batch], self.train.y[batch])
        self.iteration += steps
        if self.iteration % every == 0 or self.iteration == options.length.iterations:
            since = self.iteration - (self.rows[-1]["iteration"] if self.rows else 0)
            self._evaluate(train_loss=self.loss_sum.item() / since)
            self.loss_sum.zero_()
        self.seconds += time.monotonic() - began

    def _step(self, x: Tensor, y: Tensor) -> Tensor:
        loss = functional.cross_entropy(self.network(x), y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        # Whatever momentum or weight decay did, a pruned weight is zero again before anything reads it.
        with torch.no_grad():
            for weight, kept in self.masked:
                weight.mul_(kept)
        return loss.detach()

    def _evaluate(self, train_loss: float) -> None:
        loss, accuracy = self.evaluate(self.validation)
        if not (math.isfinite(train_loss) and math.isfinite(loss)):
            self.diverged = True
            return
        row = {
            "iteration": self.iteration,
            "train_loss": train_loss,
            "validation_loss": loss,
            "validation_accuracy": accuracy,
        }
        if self.run.training.test_curve:
            row["test_loss"], row["test_accuracy"] = self.evaluate(self.test)
        self.rows.append(row)
        if loss < self.best_loss:
            self.best_loss, self.best = loss, self._copy()

    @torch.no_grad()
    def evaluate(self, examples: Examples) -> tuple[float, float]:
        """Mean cross-entropy and accuracy over `examples`, the network in evaluation mode."""
        self.network.eval()
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        parts = (torch.split(tensor, EVALUATION_BATCH) for tensor in (examples.x, examples.y))
        for x, y in zip(*parts, strict=True):
            logits = self.network(x)
            loss += functional.cross_entropy(logits, y, reduction="sum")
            correct += (logits.argmax(1) == y).sum()
        return loss.item() / len(examples), correct.item() / len(examples)

    def measures(self) -> Measures:
        """The figures of the training, now that it has ended."""
        if self.diverged:
            return Measures(diverged=True, iterations=self.iteration)
        stop = min(self.rows, key=lambda row: row["validation_loss"])
        final = self._copy()
        train_accuracy, test_accuracy = (self.evaluate(part)[1] for part in (self.train, self.test))
        self.network.load_state_dict(self.best)
        train_accuracy_at_stop, test_accuracy_at_stop = (self.evaluate(part)[1] for part in (self.train, self.test))
        self.network.load_state_dict(final)
        return Measures(
            diverged=False,
            iterations=self.iteration,
            stop_iteration=int(stop["iteration"]),
            validation_loss_at_stop=stop["validation_loss"],
            validation_accuracy_at_stop=stop["validation_accuracy"],
            train_accuracy_at_stop=train_accuracy_at_stop,
            test_accuracy_at_stop=test_accuracy_at_stop,
            train_accuracy=train_accuracy,
            test_accuracy=test_accuracy,
        )

    def weights(self) -> State:
        """The network's `state_dict`, on the CPU."""
        return {name: tensor.cpu() for name, tensor in self._copy().items()}

    def curves(self) -> dict[str, Tensor]:
        """What was evaluated on the way, one tensor a column; see `Outcome`."""
        names = self.rows[0] if self.rows else {}
        kinds = {name: torch.int64 if name == "iteration" else torch.float64 for name in names}
        return {name: torch.tensor([row[name] for row in self.rows], dtype=kinds[name]) for name in names}

    def _copy(self) -> State:
        return {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the rest of the training depends on: weights, best weights, optimizer and random state."""
        tensors = {f"network/{name}": tensor for name, tensor in self._copy().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{n}": value for n, value in state.items() if value is not None}
        tensors["loss/sum"] = self.loss_sum
        tensors["random/cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors, {"iteration": self.iteration, "rows": self.rows, "seconds": self.seconds}

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Go back to where `snapshot` was taken."""
        parts: dict[str, State] = {"network": {}, "best": {}, "optimizer": {}, "random": {}, "loss": {}}
        for entry, tensor in tensors.items():
            part, _, name = entry.partition("/")
            parts[part][name] = tensor
        self.network.load_state_dict(parts["network"])
        self.best = {name: tensor.to(self.device) for name, tensor in parts["best"].items()}
        states: dict[int, State] = {}
        for entry, tensor in parts["optimizer"].items():
            index, _, name = entry.partition("/")
            states.setdefault(int(index), {})[name] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": states, "param_groups": groups})
        self.loss_sum = parts["loss"]["sum"].to(self.device)
        torch.set_rng_state(parts["random"]["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(parts["random"]["cuda"], self.device)
        self.iteration = about["iteration"]
        self.rows = about["rows"]
        self.seconds = about["seconds"]
        self.best_loss = min((row["validation_loss"] for row in self.rows), default=math.inf)
