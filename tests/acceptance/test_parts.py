"""Parts of an experiment that are trained at the same time, by processes that share a store."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import tomli_w

from tests.support.command_line import tombola
from tests.support.recipes import tiny
from tests.support.result_files import result_files

PARTS = 3
SIZE = {"replicates": PARTS, "search__levels": 2, "controls__reinit": 1, "training__length": "300it"}
RUNS_OF_A_PART = 5


def arguments(folder: Path, out: str, store: str) -> list[str]:
    recipe = folder / "tiny.toml"
    recipe.write_text(tomli_w.dumps(tiny(**SIZE).resolved()))
    places = ["--out", str(folder / out), "--store", str(folder / store)]
    return [
        "run",
        str(recipe),
        *places,
        "--engine",
        "eager",
        "--workers",
        "1",
        "--checkpoint-every",
        "0.05",
        "--no-report",
    ]


def start(arguments: list[str], part: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tombola", *arguments, "--part", f"{part}/{PARTS}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(process: subprocess.Popen[str]) -> str:
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return printed


def test_parts_killed_and_started_again_give_the_files_of_a_single_process(tmp_path: Path) -> None:
    whole, parts = arguments(tmp_path, "whole", "store-a"), arguments(tmp_path, "parts", "store-b")
    processes = {part: start(parts, part) for part in range(1, PARTS + 1)}
    victim = processes[2]
    while victim.poll() is None and not any((tmp_path / "store-b" / "runs").glob("*/*.safetensors")):
        time.sleep(0.02)
    assert victim.poll() is None
    victim.kill()
    victim.communicate()
    processes[2] = start(parts, 2)
    for part, process in processes.items():
        printed = output(process)
        assert f"part {part}/{PARTS}" in printed
        assert "without --part" in printed
    assert not (tmp_path / "parts").exists()

    last = tombola(*parts)
    assert f"all {PARTS * RUNS_OF_A_PART} runs" in last.stdout
    assert json.loads((tmp_path / "parts" / "status.json").read_text())["runs"]["trained"] == 0
    assert tombola(*whole).exit_code == 0
    assert result_files(tmp_path / "parts") == result_files(tmp_path / "whole")
