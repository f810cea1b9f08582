"""DistributedLearner: a `Learner` of one of several processes, which trains on its share of each batch."""

from __future__ import annotations

from typing import cast

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tombola.engines import optimizers
from tombola.engines.augmentation import Augmentation
from tombola.engines.distributed.batch_share import BatchShare, SharedAugmentation, SharedMixup, SharedOrder
from tombola.engines.distributed.job import Job
from tombola.engines.eager import ModuleLearner
from tombola.engines.history import Evaluation
from tombola.engines.mixup import Mixed, Mixup
from tombola.engines.training_loop import SplitName
from tombola.pruning.mask import State
from tombola.runs.run import Run
from tombola.runs.sparse_state import strip_prefix
from tombola.utils.errors import InputError
from tombola.utils.host_copies import host_copies
from tombola.utils.random_state import preserve_rng_state
from tombola.zoo.batches import BatchOrder
from tombola.zoo.datasets.split import Split

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers by their size in bytes."""


class DistributedLearner(ModuleLearner):
    """All processes call the same methods of their learners in the same order, and `weights`, `optimizer_states` and
    `keep_best` in the first process only.

    Gradients are averaged by `DistributedDataParallel`, after which each process makes the same step. Best weights,
    their average and the running statistics of normalisation are those of the first process, which the others
    evaluate, too, on their share of the examples.
    """

    def __init__(self, network: nn.Module, run: Run, split: Split, job: Job) -> None:
        super().__init__(network, run, split, job.device)
        self.job = job
        self.share = BatchShare(job.rank, job.size, run.training.batch_size, self.mixup)
        # They have the methods that the training calls.
        self.order = cast(BatchOrder, SharedOrder(self.order, self.share))
        if self.augmentation is not None:
            self.augmentation = cast(Augmentation, SharedAugmentation(self.augmentation, self.share))
        if self.mixup is not None:
            self.mixup = cast(Mixup, SharedMixup(self.mixup))
        self.replica: DistributedDataParallel | None = None
        self.weights_differ = False
        """Whether the processes had different weights when `take_losses` was called."""
        if job.rank > 0:
            self.average, self.best = None, {}

    def train(self, orders: Tensor, first: int) -> None:
        positions = self.share.positions(first, orders.shape[1])
        super().train(orders.gather(2, positions[None]), first)

    def step(self, x: Tensor, y: Tensor, mixed: Mixed | None = None) -> None:
        if self.replica is None:
            self.replica = DistributedDataParallel(
                self.network,
                process_group=self.job.tensor_group,
                find_unused_parameters=self._has_unused_parameters(x, y, mixed),
            )
        try:
            super().step(x, y, mixed)
        except RuntimeError as error:
            if "find_unused_parameters" not in str(error):
                raise
            raise InputError(
                "training: the network uses other parameters in other iterations; train it in one process"
            ) from error

    def _has_unused_parameters(self, x: Tensor, y: Tensor, mixed: Mixed | None) -> bool:
        """Whether a parameter gets no gradient from this batch, in any process."""
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        with preserve_rng_state([self.device] if self.device.type == "cuda" else []):
            self._loss(x, y, mixed).backward()  # type: ignore[no-untyped-call]
        trained = [parameter for parameter in self.parameters.values() if parameter.requires_grad]
        unused = any(parameter.grad is None for parameter in trained)
        self.network.zero_grad(set_to_none=True)
        for name, buffer in self.network.named_buffers():
            buffer.copy_(buffers[name])
        return any(self.job.gather(unused))

    def _forward(self, x: Tensor) -> Tensor:
        trained = self.replica if self.network.training else None
        logits: Tensor = (trained or self.network)(x)
        return logits

    def take_losses(self) -> list[float]:
        (loss,) = super().take_losses()
        gathered = self.job.gather((loss, self._weight_bits()))
        losses, bits = zip(*gathered, strict=True)
        self.weights_differ = len(set(bits)) > 1
        return [sum(losses) / self.job.size]

    def _weight_bits(self) -> int:
        """A sum of the bits of all weights."""
        bits = (
            weight.detach().view(_BITS.get(weight.element_size(), torch.uint8)) for weight in self.parameters.values()
        )
        return int(sum(each.sum(dtype=torch.int64) for each in bits))

    @torch.no_grad()
    def evaluate(self, split_name: SplitName, best: bool = False) -> list[Evaluation]:
        current = self._copy()
        self.network.load_state_dict(self._of_first_process(self.best if best else self._evaluated()))
        scores = self._evaluate(split_name)
        self.network.load_state_dict(current)
        return scores

    def _of_first_process(self, state: State) -> State:
        """The first process' `state`, a `state_dict` of the network."""
        like = self.network.state_dict()
        if self.job.rank == 0:
            like = {name: state[name] for name in like}
        sent = torch.cat([tensor.detach().reshape(-1).view(torch.uint8) for tensor in like.values()])
        distributed.broadcast(sent, 0, group=self.job.tensor_group)
        parts = torch.split(sent, [tensor.numel() * tensor.element_size() for tensor in like.values()])
        return {
            name: part.clone().view(tensor.dtype).view(tensor.shape)  # a clone is aligned
            for (name, tensor), part in zip(like.items(), parts, strict=True)
        }

    def _evaluate(self, split_name: SplitName) -> list[Evaluation]:
        examples = getattr(self.split, split_name)
        ends = [len(examples) * number // self.job.size for number in (self.job.rank, self.job.rank + 1)]
        totals = self.job.gather(self._totals(examples.part(*ends)))
        loss, correct = map(sum, zip(*totals, strict=True))
        return [Evaluation(loss / len(examples), correct / len(examples))]

    def state_dict(self) -> dict[str, Tensor]:
        own: dict[str, Tensor] = {}
        if self.job.rank > 0:
            own = optimizers.random_state(self.device) | host_copies({"loss": self.loss_sum})
        others = self.job.gather(own)
        if self.job.rank > 0:
            return own
        named = {f"{_prefix(rank)}/{name}": tensor for rank, own in enumerate(others) for name, tensor in own.items()}
        return super().state_dict() | named

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        super().load_state_dict(state | strip_prefix(state, _prefix(self.job.rank)))
        if self.job.rank > 0:
            self.best = {}


def _prefix(rank: int) -> str:
    return f"process-{rank}"
