"""Killed at any moment and started again, an experiment ends as if nothing had happened."""

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

from tests.conftest import tiny

TOMBOLA = [sys.executable, "-m", "tombola"]


def command(folder: Path, out: str, store: str, length: str = "1000it", engine: str = "auto") -> list[str]:
    recipe = folder / "tiny.toml"
    # There is a ticket, whatever comes out.
    everything_wins = {
        "accuracy_margin": 0.99,
        "stop_margin": 99.0,
        "max_density": 0.99,
        "confidence": 0.8,
        "control": "random",
    }
    made = tiny(replicates=3, training__length=length, training__lr=0.05, verdict=everything_wins)
    recipe.write_text(tomli_w.dumps(made.resolved()))
    places = ["--out", str(folder / out), "--store", str(folder / store)]
    options = ["--engine", engine, "--workers", "2", "--checkpoint-every", "0.05", "--no-report"]
    return [*TOMBOLA, "run", str(recipe), *places, *options]


def tables(folder: Path) -> dict[str, bytes]:
    names = ("levels.parquet", "layers.parquet", "curves.parquet", "experiment.toml", "ticket.safetensors")
    return {name: (folder / name).read_bytes() for name in names}


def tally(folder: Path) -> dict[str, int]:
    runs: dict[str, int] = json.loads((folder / "status.json").read_text())["runs"]
    return runs


def kill_and_restart(folder: Path, kills: int, length: str, engine: str, latest: float) -> None:
    """Kill an experiment `kills` times, each at a random moment in its first `latest` seconds."""
    undisturbed = command(folder, "undisturbed", "store-a", length, engine)
    subprocess.run(undisturbed, check=True, capture_output=True)
    assert tally(folder / "undisturbed") == {"trained": 30, "from_store": 0, "diverged": 0}

    disturbed = command(folder, "disturbed", "store-b", length, engine)
    moments = random.Random(0)
    killed = 0
    for _ in range(kills):
        process = subprocess.Popen(disturbed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.0, latest))
        killed += process.poll() is None
        process.kill()
        process.wait()
    assert killed > 0
    subprocess.run(disturbed, check=True, capture_output=True)
    assert tables(folder / "disturbed") == tables(folder / "undisturbed")

    again = subprocess.run(disturbed, check=True, capture_output=True, text=True)
    assert "Nothing to train: all 30 runs came from the store." in again.stdout
    assert tables(folder / "disturbed") == tables(folder / "undisturbed")


def test_killed_three_times(tmp_path: Path) -> None:
    kill_and_restart(tmp_path, kills=3, length="4000it", engine="auto", latest=7.0)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "length"), [("sparse", "12000it"), ("eager", "4000it")])
def test_killed_twenty_times(tmp_path: Path, engine: str, length: str) -> None:
    kill_and_restart(tmp_path, kills=20, length=length, engine=engine, latest=9.0)


def test_two_processes_on_one_store_share_the_work_and_agree(tmp_path: Path) -> None:
    both = [
        subprocess.Popen(command(tmp_path, out, "store"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for out in ("a", "b")
    ]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    assert tally(tmp_path / "a")["trained"] + tally(tmp_path / "b")["trained"] == 30  # none was trained twice
    assert tables(tmp_path / "a") == tables(tmp_path / "b")


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("engine", "length"), [("sparse", "4000it"), ("eager", "1000it")])
def test_ctrl_c_ends_with_status_130_and_nothing_left_running(tmp_path: Path, engine: str, length: str) -> None:
    arguments = command(tmp_path, "out", "store", length, engine)
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background inherit SIG_IGN
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "store").rglob("runs/*/*.safetensors")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does: everybody in the group hears it
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors.decode()
    assert b"the same command goes on" in errors
    assert b"Traceback" not in errors
    while group_lives(process.pid):
        assert time.monotonic() < deadline + 60
        time.sleep(0.05)
    subprocess.run(arguments, check=True, capture_output=True)
    assert tally(tmp_path / "out")["from_store"] >= 1
