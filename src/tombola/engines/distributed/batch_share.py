"""The share of each batch that one of several processes trains on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tombola.engines.augmentation import Augmentation
from tombola.engines.mixup import Mixed, Mixup
from tombola.runs.run import Run
from tombola.utils.errors import InputError
from tombola.zoo.batches import BatchOrder


def check_batch(run: Run, processes: int) -> None:
    """Raises `InputError` unless every process can have the same number of examples of a batch."""
    size = run.training.batch_size
    if size % processes:
        fitting = [number for number in (size - size % processes, size - size % processes + processes) if number]
        raise InputError(
            f"training.batch_size: should be a multiple of {processes}, the number of processes, such as "
            f"{' or '.join(map(str, fitting))}, not {size}"
        )


@dataclass(frozen=True)
class BatchShare:
    """The examples of process `rank` of `size`: contiguous, and as many for each. With mixup, they are followed by
    those that they are mixed with, which may be others' examples."""

    rank: int
    size: int
    batch: int
    mixup: Mixup | None

    @property
    def examples(self) -> int:
        """The examples of each batch, not counting those that they are mixed with."""
        return self.batch // self.size

    def positions(self, first: int, count: int) -> Tensor:
        """The positions of these examples in the batches of `count` iterations from `first`: int64 of shape (count,
        examples), or twice as many."""
        begin = self.rank * self.examples
        own = torch.arange(begin, begin + self.examples).expand(count, -1)
        if self.mixup is None:
            return own
        drawn = self.mixup.draws(first, count)
        others = torch.stack([mixed.others for mixed in drawn]).cpu()
        return torch.cat([own, others[:, begin : begin + self.examples]], 1)


@dataclass(frozen=True)
class SharedOrder:
    """The order of the examples of this share."""

    whole: BatchOrder
    share: BatchShare

    @property
    def batch_size(self) -> int:
        """How many examples are read for a batch."""
        return self.share.examples * (1 if self.share.mixup is None else 2)

    def batches(self, first: int, count: int) -> Tensor:
        """See `BatchOrder`."""
        return self.whole.batches(first, count).gather(1, self.share.positions(first, count))


@dataclass(frozen=True)
class SharedAugmentation:
    """The augmentation of this share, with the draws that the whole batch has."""

    whole: Augmentation
    share: BatchShare

    def choices(self, first: int, count: int) -> Tensor:
        """See `Augmentation`."""
        choices = self.whole.choices(first, count)
        positions = self.share.positions(first, count).to(choices.device)
        return choices.gather(1, positions[:, :, None].expand(-1, -1, choices.shape[2]))

    def __call__(self, x: Tensor, choices: Tensor) -> Tensor:
        """See `Augmentation`."""
        return replace(self.whole, black=self.whole.black[: len(x)])(x, choices)  # the same for all images of a run


@dataclass(frozen=True)
class SharedMixup:
    """The mixup of this share."""

    whole: Mixup

    def draws(self, first: int, count: int) -> list[Mixed]:
        """See `Mixup`."""
        return [MixedShare(mixed.share, mixed.others) for mixed in self.whole.draws(first, count)]


class MixedShare(Mixed):
    """Examples, followed by those that they are mixed with."""

    def pair(self, values: Tensor) -> tuple[Tensor, Tensor]:
        own, others = values.tensor_split(2)
        return own, others
