"""Compiling ahead of the first call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tombola.kernels import ahead, compiled
from tombola.kernels.products import adjacent, gather

LINE = "compiling the kernels for this processor, once"
GATHER = """
import logging
import numpy as np
logging.basicConfig(level="INFO", format="%(message)s")
from tombola.kernels.ahead import compile_ahead
from tombola.kernels.products import gather
arguments = np.arange(3, dtype=np.float32), np.array([2, 0], np.int32), np.empty(2, np.float32)
compile_ahead((gather, arguments))
gather(*arguments)
print(sum(gather.stats.cache_hits.values()), sum(gather.stats.cache_misses.values()), arguments[2].tolist())
"""
LOADED = "1 0 [2.0, 0.0]"
"""What that prints if the call loads from the cache and compiles nothing."""
TRAIN = "from tombola.cli import main; main()"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With an empty cache folder."""
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "TOMBOLA_SPEEDS": str(tmp_path / "speeds.json")}


def _start(code: str, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background processes inherit SIG_IGN
    )


def _machine_code(environment: dict[str, str]) -> list[str]:
    """The names of the cached functions."""
    return sorted(path.name.partition("-")[0] for path in Path(environment["XDG_CACHE_HOME"]).rglob("*.nbc"))


@pytest.mark.skipif(sys.platform != "linux", reason="the cache folder is set by XDG_CACHE_HOME")
def test_processes_that_share_an_empty_cache_compile_once(environment: dict[str, str]) -> None:
    together = [_start(GATHER, environment) for _ in range(2)]
    ended = [process.communicate(timeout=300) for process in together]
    assert [out.strip() for out, _ in ended] == [LOADED, LOADED]
    assert sum(LINE in error for _, error in ended) == 1
    assert _machine_code(environment) == ["products.gather"]

    out, error = _start(GATHER, environment).communicate(timeout=300)
    assert (out.strip(), error) == (LOADED, "")


@pytest.mark.skipif(sys.platform != "linux", reason="the cache folder is set by XDG_CACHE_HOME")
def test_an_interrupt_while_compiling_ends_the_command_and_leaves_the_cache_usable(
    environment: dict[str, str], tmp_path: Path
) -> None:
    out = str(tmp_path / "results")
    command = _start(TRAIN, environment, "run", "digits", "--engine", "sparse", "--workers", "1", "--out", out)
    assert command.stderr is not None
    for line in command.stderr:
        if LINE in line:
            break
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=300)
    assert command.returncode == 130
    assert not [name for name in _machine_code(environment) if name.startswith("loop.")]

    loaded, error = _start(GATHER, environment).communicate(timeout=300)
    assert loaded.strip() == LOADED
    assert LINE in error


def test_nothing_is_compiled_ahead_without_a_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "cache_folder", lambda: None)
    monkeypatch.setattr(ahead, "start_process", None)
    ahead.compile_ahead((gather, (np.ones(1), np.zeros(1, np.int16), np.ones(1))))


def test_the_call_compiles_if_the_process_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Types that the function does not take fail there, and again in the call, which says why."""
    monkeypatch.setattr(ahead, "cache_folder", lambda: tmp_path)
    ahead.compile_ahead((adjacent, ("a", 0, 1)))
    with pytest.raises(Exception, match="nopython"):
        adjacent("a", 0, 1)


def test_functions_called_by_compiled_functions_can_be_called_from_python() -> None:
    @compiled.compiled
    def twice(x: int) -> int:
        return 2 * x

    @compiled.compiled
    def four_times(x: int) -> int:
        return int(twice(twice(x)))

    assert four_times(3) == 12
    assert twice(3) == 6
