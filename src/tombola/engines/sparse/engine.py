"""The sparse engine: on a CPU, computes with the kept weights only."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tombola.engines.determinism import reproducible
from tombola.engines.eager import Eager
from tombola.engines.running_statistics import recompute_statistics
from tombola.engines.training_loop import Capacity, TrainingLoop, run_to_end
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.initial_state import StateLoader, masked_network, no_stored_states
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.utils.errors import InputError
from tombola.utils.random_state import preserve_rng_state
from tombola.utils.seeds import Purpose, derive
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.split import Split
from tombola.zoo.models import build
from tombola.zoo.models.description import Start

if TYPE_CHECKING:
    from tombola.engines.sparse.network_learner import NetworkLearner
    from tombola.engines.sparse.sparsify import SparsifiedLearner
    from tombola.engines.sparse.speeds import Speed
    from tombola.kernels.plans.training_plan import TrainingPlan

log = logging.getLogger(__name__)

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Sparse:
    """Trains one run after another, each on one thread, in time that follows the number of kept weights.

    Networks that the kernels know entirely train in compiled loops (`kernels.training`). In all other modules, layers
    are made sparse where that is faster (`sparsify`). Without numba it trains as `Eager` does, with a warning.
    """

    data_dir: str | Path | None = None
    device: str = "cpu"

    def capacity(self, run: Run) -> Capacity:
        # Compiled code releases the interpreter's lock.
        return Capacity(threads=not _why_dense(run) and not isinstance(_plan(run), str))

    def train(
        self, runs: Sequence[Run], checkpoint: Checkpoint, load_state: StateLoader = no_stored_states
    ) -> list[Outcome]:
        (run,) = runs
        if reason := _why_dense(run):
            _warn_once(f"{reason}: training dense")
            return Eager(self.data_dir, self.device).train(runs, checkpoint, load_state)
        # Compiled loops use no global state, so that several can train in threads.
        in_threads = self.capacity(run).threads
        with (
            nullcontext() if in_threads else reproducible(derive(run.seed, Purpose.NOISE), torch.device(self.device))
        ):
            split = prepare(run.data, self.data_dir)
            learner = learner_of(run, split, load_state)
            loop = TrainingLoop([run], learner, split.train, load_state)
            return run_to_end(loop, checkpoint, self._name(learner.how))

    def _name(self, how: str) -> str:
        from tombola.engines.sparse.speeds import versions

        return f"sparse ({how}) on {self.device}, {versions()}"


def learner_of(
    run: Run, split: Split, load_state: StateLoader = no_stored_states
) -> NetworkLearner | SparsifiedLearner:
    """What trains `run` on `split`: compiled loops for networks that the kernels know entirely, else the module with
    sparse layers where those are faster. Needs numba. Raises what `masked_network` raises."""
    network, plan = recompute_statistics(masked_network(run, load_state), run, split, CPU), _plan(run)
    if not isinstance(plan, str):
        from tombola.engines.sparse.network_learner import NetworkLearner

        return NetworkLearner(plan, network.state_dict(), run, split)
    from tombola.engines.sparse.sparsify import SparsifiedLearner, sparsify
    from tombola.engines.sparse.speeds import Speeds

    log.info("the network trains layer by layer: %s", plan)
    inputs, _ = split.train[torch.arange(run.training.batch_size)]
    sparsified, dense = sparsify(network, run.mask, inputs, Speeds.default())
    for name, reason in dense.items():
        log.info("%s stays dense: %s", name, reason)
    return SparsifiedLearner(sparsified, run, split, CPU)


def _why_dense(run: Run) -> str | None:
    """Why `run` cannot be trained sparse here, or None if it can."""
    if run.training.precision == "bf16":
        return "the sparse engine computes in float32 only"
    if run.training.custom_optimizer:
        return f'the sparse engine does not take the optimizer "{run.training.optimizer}"'
    return _why_unavailable()


@functools.cache
def _why_unavailable() -> str | None:
    try:
        import tombola.kernels.training.loop  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        return f"the sparse engine needs numba, which cannot be imported ({error})"
    return None


_PLANS: dict[str, TrainingPlan | str] = {}
"""By the network's description: making a plan takes time, and the conductor asks often."""


def _plan(run: Run) -> TrainingPlan | str:
    """The plan that the compiled loops train, or why they cannot."""
    from tombola.engines.sparse.compiled_plan import compiled_plan, why_not_this_run

    network = run.start.network
    key = network.model_dump_json()
    if key not in _PLANS:
        with preserve_rng_state():  # tracing replaces methods of nn.Module: other threads neither build nor plan then
            if key not in _PLANS:
                _PLANS[key] = compiled_plan(build(Start(network=network, seed=0)), network.inputs)
    plan = _PLANS[key]
    return plan if isinstance(plan, str) else why_not_this_run(plan, run) or plan


def known_speeds() -> tuple[Path, list[Speed]]:
    """The measured speeds of layers, on this machine and others, and the file that stores them. Raises `InputError`
    without numba."""
    if reason := _why_unavailable():
        raise InputError(reason)
    from tombola.engines.sparse.speeds import Speeds

    speeds = Speeds.default()
    return speeds.path, speeds.all()


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)
