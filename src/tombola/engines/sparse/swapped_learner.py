"""A learner for modules with sparse layers: plain PyTorch around them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tombola.engines.module_learner import ModuleLearner
from tombola.engines.sparse.swap import Swapped
from tombola.pruning.mask import Mask, State
from tombola.runs.run import Run
from tombola.zoo.datasets.split import Split


class SwappedLearner(ModuleLearner):
    """Trains a module some of whose layers are sparse; the others are masked, as in any module."""

    def __init__(self, swapped: Swapped, run: Run, split: Split, device: torch.device) -> None:
        dense = Mask(
            {name: kept for name, kept in run.mask.items() if name.removesuffix(".weight") not in swapped.layers}
        )
        super().__init__(swapped.network, run, split, device, dense)
        self.swapped = swapped

    def weights(self) -> list[State]:
        """See `Learner`: under the names that the module had."""
        return [self.swapped.state()]

    def optimizers(self) -> list[State]:
        """See `Learner`."""
        return [self.swapped.dense(state) for state in super().optimizers()]

    def load_optimizers(self, states: Sequence[State]) -> None:
        """See `Learner`."""
        super().load_optimizers([self.swapped.packed(state) for state in states])
