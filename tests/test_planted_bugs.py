"""The pretended CUDA device sees bugs: each of `BUGS` is planted, and its case fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.cuda_bugs import BUGS, CASES, STALE, Bug
from tests.support.cuda_trainings import CHANGES, cuda_runs
from tests.support.planted import planted
from tests.support.pretended_cuda import PretendedCuda
from tombola.engines.stacked import engine

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real CUDA device")


@pytest.fixture(autouse=True)
def _limits_without_bugs(monkeypatch: pytest.MonkeyPatch) -> None:
    """That networks can be stacked is known before a bug is planted; what is found out afterwards is forgotten."""
    with PretendedCuda():
        for name in CHANGES:
            engine.Stacked(None, "cuda").capacity(cuda_runs(name, 1)[0])
    for name in ("_LIMITS", "_REASONS"):
        monkeypatch.setattr(engine, name, dict(getattr(engine, name)))


@pytest.mark.parametrize("case", CASES)
def test_a_case_passes_without_a_bug(case: str, tmp_path: Path) -> None:
    with PretendedCuda() as gpu:
        CASES[case](gpu, tmp_path)


@pytest.mark.parametrize("bug", BUGS, ids=[f"{bug.module.rpartition('.')[2]}: {bug.name}" for bug in BUGS])
def test_a_case_fails_with_its_bug(bug: Bug, tmp_path: Path) -> None:
    error = AssertionError if bug.seen is STALE else (AssertionError, RuntimeError)
    with (
        PretendedCuda() as gpu,
        planted(bug.module, bug.old, bug.new),
        pytest.raises(error, match=bug.seen),
    ):
        CASES[bug.case](gpu, tmp_path)
