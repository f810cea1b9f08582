"""The sparse engine: on a CPU, arithmetic for the weights left and no others."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from tombola.engines.capacity import Capacity
from tombola.engines.eager import Eager, reproducible
from tombola.engines.training import LiveTraining, carry_out
from tombola.outcome import Outcome
from tombola.run import Run, Start
from tombola.seeds import Purpose, derive
from tombola.store import Checkpoint
from tombola.zoo.data import prepare
from tombola.zoo.data.split import Split
from tombola.zoo.networks import build

if TYPE_CHECKING:
    from tombola.engines.sparse.stack import Stack

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sparse:
    """Trains one run after another, each on one thread, at the cost of the weights left.

    Stacks of linear layers train wholly in compiled code (`loop`); of any other module those layers are swapped for
    sparse ones that are faster so (`swap`). Where numba is missing it says so and trains as `Eager` does.
    """

    data_dir: Path | None = None
    device: str = "cpu"

    def capacity(self, run: Run) -> Capacity:
        """See `tombola.engines.Engine`. Compiled loops leave the interpreter's lock alone."""
        return Capacity(threads=not missing() and not isinstance(_stack(run.start.network.model_dump_json()), str))

    def train(self, runs: Sequence[Run], checkpoint: Checkpoint) -> list[Outcome]:
        """Train the one run in `runs`; see `tombola.engines.Engine`."""
        if reason := missing():
            _say_once(f"the sparse engine needs numba, and cannot import it ({reason}): training dense")
            return Eager(self.data_dir, self.device).train(runs, checkpoint)
        (run,) = runs
        split = prepare(run.data, self.data_dir)
        network = build(run.start)
        from tombola.engines.sparse.stack import stack_of

        stack = stack_of(network)
        if isinstance(stack, str):
            return self._train_module(run, network, split, checkpoint)
        return self._train_stack(run, network, stack, split, checkpoint)

    def _train_stack(
        self, run: Run, network: nn.Module, stack: Stack, split: Split, checkpoint: Checkpoint
    ) -> list[Outcome]:
        from tombola.engines.sparse.stack_learner import StackLearner

        noise = derive(run.seed, Purpose.NOISE)
        learner = StackLearner(stack, network.state_dict(), run.mask, run.training, split, noise)
        return carry_out(LiveTraining([run], learner, len(split.train)), checkpoint, self._name("loop"))

    def _train_module(self, run: Run, network: nn.Module, split: Split, checkpoint: Checkpoint) -> list[Outcome]:
        from tombola.engines.sparse.speeds import Speeds
        from tombola.engines.sparse.swap import swap
        from tombola.engines.sparse.swapped_learner import SwappedLearner

        with reproducible(derive(run.seed, Purpose.NOISE), torch.device(self.device)):
            run.mask.apply_(network)
            inputs, _ = split.train[torch.arange(run.training.batch_size)]
            swapped, dense = swap(network, run.mask, inputs, Speeds.default())
            for name, reason in dense.items():
                log.info("%s stays dense: %s", name, reason)
            learner = SwappedLearner(swapped, run.mask, run.training, split, torch.device(self.device))
            how = f"layers {', '.join(swapped.layers)}" if swapped.layers else "no layer"
            return carry_out(LiveTraining([run], learner, len(split.train)), checkpoint, self._name(how))

    def _name(self, how: str) -> str:
        import numba

        return f"sparse ({how}) on {self.device}, numba {numba.__version__}, torch {torch.__version__}"


@functools.cache
def missing() -> str | None:
    """Why compiled kernels cannot be used here, if they cannot."""
    try:
        import tombola.engines.sparse.loop  # noqa: F401
    except ImportError as error:
        return str(error)
    return None


@functools.lru_cache(maxsize=16)
def _stack(network: str) -> Stack | str:
    from tombola.engines.sparse.stack import stack_of
    from tombola.run import Network

    described = Network.model_validate_json(network)
    return stack_of(build(Start(network=described, seed=0)))


@functools.cache
def _say_once(line: str) -> None:
    log.warning(line)
