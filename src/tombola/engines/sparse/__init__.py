"""The sparse engine: on a CPU, arithmetic for the weights left and no others."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tombola.engines.capacity import Capacity
from tombola.engines.eager import Eager, reproducible
from tombola.engines.training_loop import TrainingLoop, run_to_end
from tombola.runs.initial_state import Recall, masked_network, no_earlier_runs
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.runs.store import Checkpoint
from tombola.utils.errors import InputError
from tombola.utils.seeds import Purpose, derive
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.split import Split
from tombola.zoo.models import build
from tombola.zoo.models.description import Start

if TYPE_CHECKING:
    from tombola.engines.sparse.speeds import Speed
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
        return Capacity(threads=not _refusal(run) and not isinstance(_stack(run), str))

    def train(self, runs: Sequence[Run], checkpoint: Checkpoint, recall: Recall = no_earlier_runs) -> list[Outcome]:
        """Train the one run in `runs`; see `tombola.engines.Engine`."""
        (run,) = runs
        if reason := _refusal(run):
            _say_once(f"{reason}: training dense")
            return Eager(self.data_dir, self.device).train(runs, checkpoint, recall)
        split = prepare(run.data, self.data_dir)
        stack = _stack(run)
        if isinstance(stack, str):
            return self._train_module(run, split, checkpoint, recall)
        return self._train_stack(run, stack, split, checkpoint, recall)

    def _train_stack(
        self, run: Run, stack: Stack, split: Split, checkpoint: Checkpoint, recall: Recall
    ) -> list[Outcome]:
        from tombola.engines.sparse.stack_learner import StackLearner

        learner = StackLearner(stack, masked_network(run, recall).state_dict(), run, split)
        return run_to_end(TrainingLoop([run], learner, len(split.train), recall), checkpoint, self._name("loop"))

    def _train_module(self, run: Run, split: Split, checkpoint: Checkpoint, recall: Recall) -> list[Outcome]:
        from tombola.engines.sparse.speeds import Speeds
        from tombola.engines.sparse.swap import swap
        from tombola.engines.sparse.swapped_learner import SwappedLearner

        with reproducible(derive(run.seed, Purpose.NOISE), torch.device(self.device)):
            network = masked_network(run, recall)
            inputs, _ = split.train[torch.arange(run.training.batch_size)]
            swapped, dense = swap(network, run.mask, inputs, Speeds.default())
            for name, reason in dense.items():
                log.info("%s stays dense: %s", name, reason)
            learner = SwappedLearner(swapped, run, split, torch.device(self.device))
            how = f"layers {', '.join(swapped.layers)}" if swapped.layers else "no layer"
            return run_to_end(TrainingLoop([run], learner, len(split.train), recall), checkpoint, self._name(how))

    def _name(self, how: str) -> str:
        import numba

        from tombola.engines.sparse.compiled import KERNELS

        versions = f"kernels {KERNELS}, numba {numba.__version__}, torch {torch.__version__}"
        return f"sparse ({how}) on {self.device}, {versions}"


def _refusal(run: Run) -> str | None:
    """Why `run` cannot be trained sparse here, if it cannot."""
    if run.training.precision == "bf16":
        return "the sparse engine multiplies float32 and nothing else"
    return _missing()


@functools.cache
def _missing() -> str | None:
    try:
        import tombola.engines.sparse.loop  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        return f"the sparse engine needs numba, which cannot be imported ({error})"
    return None


_STACKS: dict[str, Stack | str] = {}
"""By the network's description: building one takes some time, and the conductor asks often."""


def _stack(run: Run) -> Stack | str:
    """The stack that the compiled loop trains, or why it does not."""
    from tombola.engines.sparse.stack import stack_of

    if run.data.augmented:
        return "its images are changed while it trains"
    network = run.start.network
    key = network.model_dump_json()
    if key not in _STACKS:
        _STACKS[key] = stack_of(build(Start(network=network, seed=0)))
    return _STACKS[key]


def known_speeds() -> tuple[Path, list[Speed]]:
    """What has been measured of layers on this machine and others, and the file it is kept in.

    Raises `InputError` where numba is missing: then nothing is measured.
    """
    if reason := _missing():
        raise InputError(reason)
    from tombola.engines.sparse.speeds import Speeds

    speeds = Speeds.default()
    return speeds.path, speeds.all()


@functools.cache
def _say_once(line: str) -> None:
    log.warning(line)
