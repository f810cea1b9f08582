"""CustomWorkload: the user's model and training function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tombola.engines.custom.engine import CustomRun
from tombola.engines.custom.model import CustomModel, restore_network
from tombola.experiments.custom_config import CustomConfig
from tombola.pruning.mask import Mask, State
from tombola.pruning.network_state import network_state, persistent_tensors
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.pruner import Pruner
from tombola.pruning.scores.inputs import generators, repeatable
from tombola.pruning.scores.losses import Loss, cross_entropy
from tombola.runs.initial_state import StateLoader
from tombola.runs.run import BaseRun, Run
from tombola.utils.random_state import RandomGenerator, seeded
from tombola.utils.seeds import Purpose, derive
from tombola.zoo.models.description import Start


@dataclass
class CustomWorkload:
    """The user's model, and how it is trained. See `Workload`."""

    source: CustomModel
    mask: Mask
    """The mask of the dense network."""
    pruner: Pruner
    prunable: PrunableNetwork
    template: dict[str, Any]
    """The fields of `CustomRun` that all runs have in common."""
    seed: int
    device: torch.device
    data: Iterable[Any] | None = None
    """Batches of training examples for scores."""
    loss: Loss = cross_entropy
    other_procedures: Sequence[str] = ()
    """The fingerprints of the dense network's other trainings."""

    @classmethod
    def of(
        cls, config: CustomConfig, source: CustomModel, prunable: PrunableNetwork, pruner: Pruner, **given: Any
    ) -> CustomWorkload:
        """The workload of this configuration; `given` are further fields."""
        return cls(
            source=source,
            mask=prunable.dense,
            pruner=pruner,
            prunable=prunable,
            template={"procedure": config.functions.fingerprint or "", **config.evaluation.model_dump()},
            seed=config.seed,
            device=next(prunable.network.parameters()).device,
            **given,
        )

    def __post_init__(self) -> None:
        with seeded(derive(self.seed, Purpose.SCORE)):  # an iterator is exhausted now
            self._batches = None if self.data is None else repeatable(self.data)

    @property
    def matrix_weights(self) -> int:
        return self.prunable.matrix_weights

    def dense(self, replicate: int) -> CustomRun:
        """The dense network's run. Each replicate has its own seeds."""
        return CustomRun(
            start=self.source.start(derive(self.seed, Purpose.WEIGHTS, replicate)),
            mask=self.mask,
            seed=derive(self.seed, Purpose.TRAINING, replicate),
            **self.template,
        )

    def baselines(self, replicate: int) -> Sequence[CustomRun]:
        dense = self.dense(replicate)
        return [dense.model_copy(update={"procedure": procedure}) for procedure in self.other_procedures]

    def initial_state(self, start: Start, load_state: StateLoader) -> State:
        return network_state(self.source.initial_network(start, load_state))

    def masked_state(self, run: BaseRun, load_state: StateLoader) -> State:
        network = self.source.initial_network(run.start, load_state)
        run.mask.apply_(network)
        state = network_state(network)
        return {name: state[name] for name in persistent_tensors(network)}

    def trained_network(self, run: BaseRun, state: State) -> Callable[[], nn.Module]:
        def trained() -> nn.Module:
            network = self.source.initial_network(run.start.model_copy(update={"trained": None}))
            restore_network(network, state)
            run.mask.apply_(network)
            return network

        return trained

    def score_batches(self, run: BaseRun) -> Callable[[], Iterable[Any]] | None:  # noqa: ARG002 - the same for all
        return self._batches

    def training_batches(self, run: Run, first: int, count: int) -> Iterator[Any]:
        raise NotImplementedError("the batches of a training function are not known")

    @property
    def generators(self) -> Sequence[RandomGenerator]:
        return generators(self.data)
