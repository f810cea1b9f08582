"""The eager engine: plain PyTorch for any module on any device, and the reference for the other engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.engines import optimizers
from tombola.engines.augmentation import Augmentation
from tombola.engines.determinism import device_and_version, reproducible
from tombola.engines.history import Evaluation
from tombola.engines.mixup import Mixed, Mixup
from tombola.engines.precision import at_least_float32, autocast, matmul_precision
from tombola.engines.running_statistics import recompute_statistics
from tombola.engines.training_loop import Capacity, SplitName, TrainingLoop, run_to_end
from tombola.engines.weight_average import ENTRY, WeightAverage
from tombola.pruning.mask import Mask, State
from tombola.pruning.normalisation import normalisation_parameters
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.initial_state import StateLoader, masked_network, no_stored_states
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.runs.sparse_state import strip_prefix
from tombola.utils.host_copies import host_copies
from tombola.utils.random_state import preserve_rng_state
from tombola.utils.seeds import Purpose, derive
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.example_set import SplitExamples
from tombola.zoo.datasets.split import Split

MAX_EVALUATION_BATCH = 5000
"""Examples that are evaluated at once, at most."""


MAX_ACTIVATIONS = {"cpu": 2**22, "cuda": 2**28}
"""Numbers in the output of a layer for such a batch, at most: it bounds memory, and on a CPU fits caches better."""


@dataclass(frozen=True)
class Eager:
    """Trains one run after another, with dense matrices and masks. On a CPU it uses one thread: a run gives the
    same bits however many train in parallel, and further cores are used best by further runs."""

    data_dir: str | Path | None = None
    device: str = "cpu"
    sharing: int = 1
    """The number of workers that share the device."""

    @property
    def name(self) -> str:
        """`eager`, and what else the bits of a result may depend on."""
        return f"eager on {device_and_version(torch.device(self.device))}"

    def capacity(self, run: Run) -> Capacity:  # noqa: ARG002 - the same for all
        return Capacity()

    def train(
        self, runs: Sequence[Run], checkpoint: Checkpoint, load_state: StateLoader = no_stored_states
    ) -> list[Outcome]:
        (run,) = runs
        device = torch.device(self.device)
        split = prepare(run.data, self.data_dir)
        noise_seed = derive(run.seed, Purpose.NOISE)
        with reproducible(noise_seed, device), matmul_precision(run.training.precision, device):
            network = recompute_statistics(masked_network(run, load_state), run, split, device).to(device)
            learner = ModuleLearner(network, run, split, device)
            return run_to_end(TrainingLoop(runs, learner, split.train, load_state), checkpoint, self.name)


class ModuleLearner:
    """A `Learner` of `network`, which is on `device`, its pruned weights zero. `mask` replaces the mask of `run`."""

    def __init__(
        self, network: nn.Module, run: Run, split: Split, device: torch.device, mask: Mask | None = None
    ) -> None:
        self.network = network
        self.device = device
        self.training = run.training
        self.split = split.to(device)
        self.parameters: State = dict(network.named_parameters())
        self.optimizer = optimizers.build_optimizer(self.parameters, normalisation_parameters(network), run.training)
        self.augmentation = Augmentation.of([run], [split], device)
        example, _ = self.split.test[torch.zeros(1, dtype=torch.int64)]
        self.evaluation_batch_size = evaluation_batch_size(network, example)
        self.order = split.train.order(run.seed, run.training.batch_size)
        self.last = run.last
        self.mixup = Mixup(run, device) if run.training.mixup else None
        self.average = WeightAverage(network, run.training.ema) if run.training.ema else None
        # A run that another one continues keeps the weights themselves.
        self.results_in_average = run.last >= run.training.length.iterations and not run.keeps_optimizer
        self.loss_sum = torch.zeros((), device=device)
        self.best = self._copy()
        self.masked = [
            (self.parameters[name], kept.to(device, self.parameters[name].dtype))
            for name, kept in (run.mask if mask is None else mask).items()
            if not kept.all()
        ]
        # Elsewhere each weight has its own update, and pruned weights do not change those of others.
        self.masks_gradients = run.training.custom_optimizer or run.training.clip_norm is not None

    def train(self, orders: Tensor, first: int) -> None:
        (order,) = orders
        self.network.train()
        self.split.train.read_ahead(self.order, first, len(order), self.last)
        rates = optimizers.learning_rates(self.training, first, len(order)).tolist()
        choices = self.augmentation.choices(first, len(order)) if self.augmentation else None
        mixed = self.mixup.draws(first, len(order)) if self.mixup else None
        for index, (x, y) in enumerate(self.split.train.batches(order)):
            optimizers.set_learning_rate(self.optimizer, rates[index])
            if self.augmentation and choices is not None:
                x = self.augmentation(x, choices[index])
            self.step(x, y, mixed[index] if mixed else None)

    def step(self, x: Tensor, y: Tensor, mixed: Mixed | None = None) -> None:
        """One iteration."""
        loss = self._loss(x, y, mixed)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.masks_gradients:
            for weight, kept in self.masked:
                if weight.grad is not None:
                    weight.grad.mul_(kept)
        if self.training.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters.values(), self.training.clip_norm)
        self.optimizer.step()
        # Momentum and weight decay may have changed pruned weights; they are zero again before the next forward pass.
        with torch.no_grad():
            for weight, kept in self.masked:
                if self.training.custom_optimizer:  # which may have divided by zero
                    weight.masked_fill_(kept == 0, 0)
                else:
                    weight.mul_(kept)
        if self.average is not None:
            self.average.update()
        self.loss_sum += loss.detach()

    def _loss(self, x: Tensor, y: Tensor, mixed: Mixed | None) -> Tensor:
        """The loss of a batch in training: its cross-entropy, with smoothed labels, of mixed examples."""
        smoothing = self.training.label_smoothing
        if mixed is None:
            return functional.cross_entropy(self._logits(x), y, label_smoothing=smoothing)
        logits = self._logits(mixed(x))
        # Cross-entropy is linear in the labels, so that mixing losses is mixing labels.
        of_each, of_others = (
            functional.cross_entropy(logits, labels, label_smoothing=smoothing) for labels in mixed.pair(y)
        )
        return torch.lerp(of_others, of_each, mixed.share)

    def _logits(self, x: Tensor) -> Tensor:
        with autocast(self.training.precision, self.device):
            logits = self._forward(x)
        return at_least_float32(logits)

    def _forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits

    def take_losses(self) -> list[float]:
        loss = self.loss_sum.item()
        self.loss_sum.zero_()
        return [loss]

    @torch.no_grad()
    def evaluate(self, split_name: SplitName, best: bool = False) -> list[Evaluation]:
        if not best and self.average is None:
            return self._evaluate(split_name)
        current = self._copy()
        self.network.load_state_dict(self.best if best else self._evaluated())
        scores = self._evaluate(split_name)
        self.network.load_state_dict(current)
        return scores

    def _evaluated(self) -> State:
        """The `state_dict` that is evaluated."""
        return self.network.state_dict() if self.average is None else self.average.state()

    def _evaluate(self, split_name: SplitName) -> list[Evaluation]:
        """Evaluate the network as it is."""
        examples: SplitExamples = getattr(self.split, split_name)
        loss, correct = self._totals(examples)
        return [Evaluation(loss / len(examples), correct / len(examples))]

    def _totals(self, examples: SplitExamples) -> tuple[float, int]:
        """The sum of the losses of these examples, and how many of them are classified correctly."""
        self.network.eval()
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for x, y in examples.in_order(self.evaluation_batch_size):
            logits = self._logits(x)
            loss += functional.cross_entropy(logits, y, reduction="sum")
            correct += (logits.argmax(1) == y).sum()
        return loss.item(), int(correct.item())

    def keep_best(self, improved: Sequence[bool]) -> None:
        assert all(improved)
        self.best = self._copy(self._evaluated())

    def weights(self) -> list[State]:
        return [host_copies(self._result())]

    def _result(self) -> State:
        """The `state_dict` that the training results in."""
        return self._evaluated() if self.results_in_average else self.network.state_dict()

    def optimizer_states(self) -> list[State]:
        average = {} if self.average is None else self.average.values
        averages = {f"{ENTRY}/{name}": value for name, value in average.items()}
        return [optimizers.optimizer_state(self.optimizer, self.parameters) | host_copies(averages)]

    def load_optimizer_states(self, states: Sequence[State]) -> None:
        (state,) = states
        averages = strip_prefix(state, ENTRY)
        own = {entry: value for entry, value in state.items() if not entry.startswith(f"{ENTRY}/")}
        optimizers.load_optimizer_state(self.optimizer, self.parameters, own)
        if self.average is not None:
            self.average.load(averages)

    def _copy(self, state: State | None = None) -> State:
        state = self.network.state_dict() if state is None else state
        return {name: tensor.detach().clone() for name, tensor in state.items()}

    def state_dict(self) -> dict[str, Tensor]:
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()} | {"loss": self.loss_sum}
        if self.average is not None:
            tensors |= {f"average/{name}": tensor for name, tensor in self.average.values.items()}
        return host_copies(tensors) | optimizers.training_state(self.optimizer, self.device)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.network.load_state_dict(strip_prefix(state, "network"))
        self.best = {name: tensor.to(self.device) for name, tensor in strip_prefix(state, "best").items()}
        if self.average is not None:
            self.average.load(strip_prefix(state, "average"))
        self.loss_sum = state["loss"].to(self.device)
        optimizers.restore_training_state(state, self.optimizer, self.device)


@torch.no_grad()
def evaluation_batch_size(network: nn.Module, example: Tensor) -> int:
    """The number of examples like `example` to evaluate at once, from the largest output of a layer."""
    device = example.device
    sizes = [1]

    def record(module: nn.Module, arguments: object, output: object) -> None:  # noqa: ARG001
        if isinstance(output, Tensor):
            sizes.append(output.numel())

    handles = [module.register_forward_hook(record) for module in network.modules()]
    training = network.training
    network.eval()
    try:
        with preserve_rng_state([device] if device.type == "cuda" else []):
            network(example)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return max(1, min(MAX_EVALUATION_BATCH, MAX_ACTIVATIONS[device.type] // max(sizes)))
