"""Experiments on a Ray cluster of three nodes give the files of local ones, whatever dies."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tests.support.command_line import tombola
from tests.support.conducting import request_together, runs_like
from tests.support.errors import raises_input_error
from tests.support.experiments import Recorder
from tests.support.outcomes import outcome_of
from tests.support.ray_nodes import RayNodes, end_process, place, wait_until
from tests.support.recipes import tiny
from tombola import run_experiment
from tombola.engines.training_loop import Capacity
from tombola.integrations.ray_cluster import ray_cluster
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun, Run
from tombola.runs.store import Store
from tombola.studies.conductor import Listener, conduct
from tombola.studies.request import RunRequest
from tombola.utils.errors import TrainingsFailed

pytest.importorskip("ray", reason="Ray is not installed")

VERDICT = {"margin": 0.99, "stop_margin": 99.0, "max_density": 0.99, "confidence": 0.8, "control": "random"}
RECIPE = tiny(replicates=3, training__length="1000it", training__lr=0.05, verdict=VERDICT, rewind={"to": "20it"})
"""Every ticket wins; levels start from the weights of an earlier run."""


def files(folder: Path) -> dict[str, bytes]:
    names = ("levels.parquet", "layers.parquet", "curves.parquet", "experiment.toml", "ticket.safetensors")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the experiment, trained by this process."""
    folder = tmp_path_factory.mktemp("local") / "out"
    run_experiment(RECIPE, folder, workers=1, progress=False)
    return files(folder)


@dataclass
class Disturbance(Listener):
    """Does something in the middle of an experiment."""

    act: Callable[[], Any]
    after: int = 7
    """Trainings."""
    trained: int = 0
    retried_runs: int = 0

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        self.trained += trained
        if trained and self.trained == self.after:
            self.act()

    def failed(self, study: int, request: RunRequest, error: Exception, again: bool) -> None:  # noqa: ARG002
        self.retried_runs += 1


def disturbed(folder: Path, act: Callable[[], Any], after: int = 7) -> Disturbance:
    disturbance = Disturbance(act, after)
    store = folder.with_suffix(".store")  # of its own
    options: dict[str, Any] = {"store": store, "checkpoint_every": 0.05, "progress": False}
    run_experiment(RECIPE, folder, cluster="auto", listeners=[disturbance], **options)
    assert disturbance.trained > after
    return disturbance


def recipe_file(folder: Path) -> Path:
    file = folder / "tiny.toml"
    file.write_text(tomli_w.dumps(RECIPE.resolved()))
    return file


@pytest.mark.usefixtures("connected")
def test_the_files_are_those_of_a_local_experiment(local: dict[str, bytes], tmp_path: Path) -> None:
    places = ["--out", str(tmp_path / "out"), "--store", str(tmp_path / "store"), "--no-report"]
    result = tombola("run", str(recipe_file(tmp_path)), "--cluster", "auto", "--resources", "cpu=0.5", *places)
    assert result.exit_code == 0, result.stderr
    assert "raylet" not in result.output
    assert files(tmp_path / "out") == local


def test_a_worker_that_dies_costs_its_training(connected: RayNodes, local: dict[str, bytes], tmp_path: Path) -> None:
    def kill() -> None:
        os.kill(wait_until(connected.training)[0], signal.SIGKILL)

    assert disturbed(tmp_path / "out", kill).retried_runs >= 1
    assert files(tmp_path / "out") == local


def test_a_node_that_dies_costs_its_trainings(connected: RayNodes, local: dict[str, bytes], tmp_path: Path) -> None:
    disturbed(tmp_path / "out", connected.kill)
    assert files(tmp_path / "out") == local


def test_a_network_that_hangs(connected: RayNodes, local: dict[str, bytes], tmp_path: Path) -> None:
    with ExitStack() as stack:
        node = connected.nodes[0].node_id
        disturbed(tmp_path / "out", lambda: stack.enter_context(connected.hanging(node)))
    assert files(tmp_path / "out") == local


def test_a_driver_that_dies_is_started_again(connected: RayNodes, local: dict[str, bytes], tmp_path: Path) -> None:
    store, out = tmp_path / "store", tmp_path / "out"
    command = [sys.executable, "-m", "tombola", "run", str(recipe_file(tmp_path)), "--out", str(out), "--no-report"]
    command += ["--store", str(store), "--cluster", "auto"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(list(store.glob("runs/*/*.safetensors"))) > 5 or process.poll() is not None)
    assert process.poll() is None
    process.kill()
    process.wait()
    wait_until(lambda: not connected.training())  # they end with their driver
    results = run_experiment(RECIPE, out, store=store, cluster="auto", progress=False)
    assert results.tally.from_store > 5
    assert files(out) == local


@dataclass(frozen=True)
class Failing:
    """An engine that fails for a seed, or on a node."""

    log: Path
    seed: int | None = None
    node: str | None = None
    fail: Callable[[], None] = end_process

    def capacity(self, run: Run) -> Capacity:  # noqa: ARG002
        return Capacity()

    def train(self, runs: Sequence[BaseRun], checkpoint: Any, load_state: Any = None) -> list[Outcome]:  # noqa: ARG002
        (run,) = runs
        with self.log.open("a") as file:
            file.write(f"{run.start.seed}\n")
        if run.start.seed == self.seed or place() == self.node:
            self.fail()
        time.sleep(0.1)
        return [outcome_of(run)]


def tries(log: Path) -> Counter[str]:
    return Counter(log.read_text().split())


def disk_full() -> None:
    raise OSError(28, os.strerror(28), "checkpoint")


@pytest.fixture
def store(store_folder: Path) -> Store:
    Store(store_folder).check_writable()
    return Store(store_folder)


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize(("fail", "why"), [(disk_full, "No space left"), (end_process, "memory")])
def test_after_three_tries_a_training_is_named(
    dense: Run, store: Store, tmp_path: Path, fail: Callable[[], None], why: str
) -> None:
    runs, engine = runs_like(dense, 6), Failing(tmp_path / "log", seed=2, fail=fail)
    with ray_cluster("auto") as executor, pytest.raises(TrainingsFailed, match=f"{runs[2].key}.*{why}"):
        conduct([request_together(*runs)], store, engine, executor, Recorder(), None, remote=True)
    assert tries(engine.log) == {str(seed): 3 if seed == 2 else 1 for seed in range(6)}
    assert [store.get(run) is None for run in runs] == [seed == 2 for seed in range(6)]


def test_a_node_with_a_full_disk_ends_no_experiment(
    connected: RayNodes, dense: Run, store: Store, tmp_path: Path
) -> None:
    runs = runs_like(dense, 20)
    engine = Failing(tmp_path / "log", node=connected.nodes[1].node_id, fail=disk_full)
    with ray_cluster("auto") as executor:
        (outcomes,) = conduct([request_together(*runs)], store, engine, executor, Recorder(), None, remote=True)
    assert len(outcomes) == 20
    assert max(tries(engine.log).values()) == 2


def test_ctrl_c_ends_what_was_started_here(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tombola", "run", str(recipe_file(tmp_path)), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [*command, "--cluster", "ray", "--set", "training.length=100000it"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"TOMBOLA_TEST": str(tmp_path)},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background processes inherit SIG_IGN
    )
    wait_until(lambda: list((tmp_path / ".tombola" / "locks").glob("*.json")) or process.poll() is not None)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the group
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, output) == (130, b""), errors.decode()
    assert len(errors.splitlines()) == 1
    wait_until(lambda: not processes_with(b"TOMBOLA_TEST=" + bytes(tmp_path)), seconds=30)


def processes_with(text: bytes) -> list[str]:
    return [path.name for path in Path("/proc").glob("[0-9]*") if text in _environment(path)]


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:  # it ended, or is someone else's
        return b""


@pytest.mark.usefixtures("connected")
def test_invalid_options(tmp_path: Path) -> None:
    result = tombola("run", str(recipe_file(tmp_path)), "--resources", "cpu=2", "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "cluster" in result.stderr
    result = tombola("run", str(recipe_file(tmp_path)), "--cluster", "slurm", "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "slurm" in result.stderr
    with raises_input_error("executor", "cluster"), ray_cluster("ray") as executor:
        run_experiment(RECIPE, tmp_path / "out", cluster="ray", executor=executor)


@pytest.mark.slow
def test_a_node_is_killed_at_twenty_moments(connected: RayNodes, local: dict[str, bytes], tmp_path: Path) -> None:
    moments = random.Random(0)
    for kill in range(20):
        connected.complete()

        def act() -> None:
            time.sleep(moments.uniform(0.0, 0.3))
            connected.kill(moments.choice(connected.nodes).node_id)

        disturbed(tmp_path / f"out-{kill}", act, after=moments.randrange(1, 25))
        assert files(tmp_path / f"out-{kill}") == local
