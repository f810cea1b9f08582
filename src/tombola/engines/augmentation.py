"""Augmenting: what engines do to the images of runs while they train, if their data says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tombola.runs.run import Run
from tombola.zoo.datasets.augment import augment, draws
from tombola.zoo.datasets.split import Split


@dataclass(frozen=True)
class Augmentation:
    """Of runs of one shape, whose batches lie one after another."""

    runs: Sequence[Run]
    black: Tensor
    """What a black pixel is, for each image of all batches: (images, channels)."""
    device: torch.device

    @classmethod
    def of(cls, runs: Sequence[Run], splits: Sequence[Split], device: torch.device) -> Augmentation | None:
        """None where images stay as they are."""
        if not runs[0].data.augmented:
            return None
        batch = runs[0].training.batch_size
        black = torch.stack([split.black for split in splits]).repeat_interleave(batch, 0)
        return cls(runs, black.to(device), device)

    def choices(self, first: int, count: int) -> Tensor:
        """What happens to each image in `count` iterations from the `first` on, of shape (count, images, 3)."""
        data, batch = self.runs[0].data, self.runs[0].training.batch_size
        drawn = {run.seed: draws(run.seed, batch, first, count, data.flip, data.crop) for run in self.runs}
        choices = torch.cat([drawn[run.seed] for run in self.runs], 1)
        if self.device.type == "cuda":
            choices = choices.pin_memory()  # or the copy would wait for the device
        return choices.to(self.device, non_blocking=True)

    def __call__(self, x: Tensor, choices: Tensor) -> Tensor:
        """The images `x`, of shape (images, channels, height, width) or (images, height, width), changed so."""
        return augment(x, choices, self.black, self.runs[0].data.crop)
