"""Experiments that are killed or interrupted at any moment, and resumed, end with the same results."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomli_w

from tests.support.command_line import tombola
from tests.support.recipes import tiny

TOMBOLA = [sys.executable, "-m", "tombola"]
RUNS = 30
"""Of an experiment."""


def arguments(
    folder: Path, out: str, store: str, length: str = "1000it", engine: str = "auto", workers: int = 2
) -> list[str]:
    """Run an experiment in which every ticket wins."""
    recipe = folder / "tiny.toml"
    verdict = {
        "margin": 0.99,
        "stop_margin": 99.0,
        "max_density": 0.99,
        "confidence": 0.8,
        "control": "random",
    }
    made = tiny(replicates=3, training__length=length, training__lr=0.02, verdict=verdict)
    recipe.write_text(tomli_w.dumps(made.resolved()))
    places = ["--out", str(folder / out), "--store", str(folder / store)]
    options = ["--engine", engine, "--workers", str(workers), "--checkpoint-every", "0.05", "--no-report"]
    return ["run", str(recipe), *places, *options]


def run_to_end(arguments: list[str]) -> str:
    result = tombola(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def wait_for_runs(process: subprocess.Popen[bytes], store: Path, count: int) -> bool:
    """Wait until the store has this many finished runs; False if the process ends before."""
    while process.poll() is None:
        if len(list(store.glob("runs/*/*.safetensors"))) >= count:
            return True
        time.sleep(0.02)
    return False


def tables(folder: Path) -> dict[str, bytes]:
    names = ("levels.parquet", "layers.parquet", "curves.parquet", "experiment.toml", "ticket.safetensors")
    return {name: (folder / name).read_bytes() for name in names}


def run_counts(folder: Path) -> dict[str, int]:
    runs: dict[str, int] = json.loads((folder / "status.json").read_text())["runs"]
    return runs


def kill_and_restart(folder: Path, kills: int, length: str, engine: str) -> None:
    """Kill an experiment `kills` times, each a random moment after a few more runs."""
    run_to_end(arguments(folder, "undisturbed", "store-a", length, engine))
    assert run_counts(folder / "undisturbed") == {"trained": RUNS, "from_store": 0, "diverged": 0}

    disturbed = arguments(folder, "disturbed", "store-b", length, engine)
    moments = random.Random(0)
    killed = 0
    for kill in range(kills):
        process = subprocess.Popen([*TOMBOLA, *disturbed], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_runs(process, folder / "store-b", 1 + RUNS * kill // kills)
        time.sleep(moments.uniform(0.0, 0.1))
        killed += process.poll() is None
        process.kill()
        process.wait()
    assert killed > 0
    run_to_end(disturbed)
    assert tables(folder / "disturbed") == tables(folder / "undisturbed")

    assert f"all {RUNS} runs" in run_to_end(disturbed)
    assert run_counts(folder / "disturbed")["trained"] == 0
    assert tables(folder / "disturbed") == tables(folder / "undisturbed")


def test_an_experiment_killed_three_times_gives_the_same_files(tmp_path: Path) -> None:
    kill_and_restart(tmp_path, kills=3, length="2000it", engine="auto")


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "length"), [("sparse", "12000it"), ("eager", "4000it")])
def test_an_experiment_killed_twenty_times_gives_the_same_files(tmp_path: Path, engine: str, length: str) -> None:
    kill_and_restart(tmp_path, kills=20, length=length, engine=engine)


def test_two_processes_on_one_store_share_the_work_and_agree(tmp_path: Path) -> None:
    both = [
        subprocess.Popen(
            [*TOMBOLA, *arguments(tmp_path, out, "store")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for out in ("a", "b")
    ]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    assert (
        run_counts(tmp_path / "a")["trained"] + run_counts(tmp_path / "b")["trained"] == RUNS
    )  # none was trained twice
    assert tables(tmp_path / "a") == tables(tmp_path / "b")


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("engine", "length"), [("sparse", "4000it"), ("eager", "200it")])
def test_ctrl_c_ends_with_status_130_and_no_process_left(tmp_path: Path, engine: str, length: str) -> None:
    interrupted = arguments(tmp_path, "out", "store", length, engine)
    process = subprocess.Popen(
        [*TOMBOLA, *interrupted],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background processes inherit SIG_IGN
    )
    if wait_for_runs(process, tmp_path / "store", 1):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the group
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors.decode()
    assert b"Traceback" not in errors
    assert len(errors.splitlines()) == 1
    deadline = time.monotonic() + 60
    while group_lives(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run_to_end(arguments(tmp_path, "out", "store", length, engine, workers=1))
    assert run_counts(tmp_path / "out")["from_store"] >= 1
