"""The distributed engine: one run after another, each by all processes of a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tombola.engines.determinism import device_and_version, reproducible
from tombola.engines.distributed.batch_share import check_batch
from tombola.engines.distributed.job import Job, conducted_job
from tombola.engines.distributed.learner import DistributedLearner
from tombola.engines.history import Evaluation
from tombola.engines.precision import matmul_precision
from tombola.engines.running_statistics import recompute_statistics
from tombola.engines.training_loop import Capacity, SplitName, TrainingLoop, run_to_end
from tombola.pruning.mask import State
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.initial_state import StateLoader, masked_network, no_stored_states
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.utils.errors import InputError, Unreachable
from tombola.utils.seeds import Purpose, derive
from tombola.utils.text import first_line
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build


@dataclass(frozen=True)
class Distributed:
    """Trains one run after another as `Eager` does, with a share of each batch in every process of the job that this
    process conducts."""

    data_dir: str | Path | None = None

    @property
    def name(self) -> str:
        """`distributed`, and what else the bits of a result may depend on."""
        job = _job()
        return f"distributed on {job.size} x {device_and_version(job.device)}"

    @property
    def device(self) -> str:
        """The kind of the devices."""
        return _job().device.type

    def capacity(self, run: Run) -> Capacity:  # noqa: ARG002 - the same for all
        return Capacity()

    def train(
        self, runs: Sequence[Run], checkpoint: Checkpoint, load_state: StateLoader = no_stored_states
    ) -> list[Outcome]:
        (run,) = runs
        job = _job()
        check_batch(run, job.size)
        split = prepare(run.data, self.data_dir)
        precision = matmul_precision(run.training.precision, job.device)
        with reproducible(derive(run.seed, Purpose.NOISE), job.device), precision:
            network = recompute_statistics(masked_network(run, load_state), run, split, job.device)
        training = DistributedTraining(run, network.state_dict(), self.data_dir)
        with job.exchange():
            job.send(training)
        with training.prepared(job) as learner:
            try:
                loop = TrainingLoop(runs, ConductedLearner(job, learner), learner.split.train, load_state)
                return run_to_end(loop, checkpoint, self.name)
            finally:
                if job.in_step:
                    with job.exchange():
                        job.send(None)


def _job() -> Job:
    job = conducted_job()
    assert job is not None, "this engine is used where a job is conducted"
    return job


@dataclass(frozen=True)
class DistributedTraining:
    """What every process needs for the training of a run. It is the message that begins the training."""

    run: Run
    state: State
    """The `state_dict` with which the training begins, pruned weights zero."""
    data_dir: str | Path | None

    def __call__(self, job: Job) -> None:
        """Take part in the training: perform the calls of the first process until the training ends."""
        try:
            with self.prepared(job) as learner:
                while (call := job.receive()) is not None:
                    method, arguments = call
                    getattr(learner, method)(*arguments)
        except _NotPrepared:
            return

    @contextmanager
    def prepared(self, job: Job) -> Iterator[DistributedLearner]:
        """The learner of this process, within the settings that make its training reproducible. If any process cannot
        prepare it, raises `InputError` or what prevents it in the first process, and `_NotPrepared` in others."""
        noise_seed = derive(self.run.seed, Purpose.NOISE, *([job.rank] if job.rank else []))
        failure: Exception | None = None
        with ExitStack() as stack:
            try:
                stack.enter_context(reproducible(noise_seed, job.device))
                stack.enter_context(matmul_precision(self.run.training.precision, job.device))
                network = self._network().to(job.device)
                learner = DistributedLearner(network, self.run, prepare(self.run.data, self.data_dir), job)
            except Exception as error:  # noqa: BLE001 - the first process raises it
                failure = error
            raise_failures(job, failure)
            yield learner

    def _network(self) -> nn.Module:
        network = build(self.run.start)
        network.load_state_dict(self.state)
        return network.train()


class _NotPrepared(Exception):
    """A process could not prepare the training."""


def raise_failures(job: Job, failure: Exception | None) -> None:
    """If there is a `failure` in any process, raise it in the first one, and `_NotPrepared` in the others."""
    with job.exchange():
        failures = job.gather(None if failure is None else (first_line(failure), isinstance(failure, InputError)))
    for rank, found in enumerate(failures):
        if found is None:
            continue
        if job.rank > 0:
            raise _NotPrepared
        if failure is not None:
            raise failure
        text, of_input = found
        raise (InputError if of_input else Unreachable)(f"process {rank} of {job.size}: {text}")


class ConductedLearner:
    """The learner of the first process. Calls in which the others take part are made in all of them."""

    def __init__(self, job: Job, learner: DistributedLearner) -> None:
        self.job = job
        self.learner = learner
        self.device = learner.device
        self.keep_best = learner.keep_best
        self.weights = learner.weights
        self.optimizer_states = learner.optimizer_states

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        with self.job.exchange():
            self.job.send((method.__name__, arguments))
            return method(*arguments)

    def train(self, orders: Tensor, first: int) -> None:
        self._call(self.learner.train, orders, first)

    def take_losses(self) -> list[float]:
        losses: list[float] = self._call(self.learner.take_losses)
        if self.learner.weights_differ:
            raise InputError(
                f"training: the weights of the {self.job.size} processes differ; this happens if the optimizer draws "
                "random numbers, or if the network uses other parameters in other iterations; train it in one process"
            )
        return losses

    def evaluate(self, split_name: SplitName, best: bool = False) -> list[Evaluation]:
        evaluations: list[Evaluation] = self._call(self.learner.evaluate, split_name, best)
        return evaluations

    def load_optimizer_states(self, states: Sequence[State]) -> None:
        self._call(self.learner.load_optimizer_states, states)

    def state_dict(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self._call(self.learner.state_dict)
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._call(self.learner.load_state_dict, state)
