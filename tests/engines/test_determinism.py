from __future__ import annotations

import os

import pytest
import torch

from tombola.engines import determinism
from tombola.engines.determinism import WORKSPACE, fix_cublas_workspace, reproducible

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is not set, and no warning was given."""
    monkeypatch.setenv(WORKSPACE, "")  # so that it is restored
    monkeypatch.delenv(WORKSPACE)
    determinism._warn_once.cache_clear()


@pytest.fixture
def without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The random state of CUDA is left alone."""
    random_state = determinism.preserve_rng_state
    monkeypatch.setattr(determinism, "preserve_rng_state", lambda _: random_state())
    monkeypatch.setattr(torch.cuda, "device", lambda _: torch.no_grad())
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda _: None)


def switches() -> dict[str, bool]:
    return {
        "enabled": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "benchmark": torch.backends.cudnn.benchmark,
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "math": torch.backends.cuda.math_sdp_enabled(),
    }


def switch(enabled: bool, warn_only: bool, fill: bool, benchmark: bool, flash: bool, efficient: bool) -> None:
    torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cuda.enable_flash_sdp(flash)
    torch.backends.cuda.enable_mem_efficient_sdp(efficient)


DEFAULTS = (False, False, True, False, True, True)
WITHIN = {"enabled": True, "warn_only": True, "math": True} | dict.fromkeys(
    ("fill", "benchmark", "flash", "efficient"), False
)


@pytest.mark.usefixtures("without_a_device")
@pytest.mark.parametrize(
    "former",
    [DEFAULTS, (True, False, True, True, False, True), (True, True, False, True, True, False)],
)
def test_on_cuda_torch_is_deterministic_without_filling_new_tensors(former: tuple[bool, ...]) -> None:
    switch(*former)
    before, threads = switches(), torch.get_num_threads()
    seen = []

    def failing() -> None:
        with reproducible(0, CUDA):
            seen.append((switches(), torch.get_num_threads()))
            raise KeyError

    try:
        with pytest.raises(KeyError):
            failing()
        assert seen == [(WITHIN, 1)]
        assert (switches(), torch.get_num_threads()) == (before, threads)
        assert os.environ[WORKSPACE] in determinism.WORKSPACES
    finally:
        switch(*DEFAULTS)


def test_on_a_cpu_random_numbers_are_those_of_the_seed_and_nothing_else_changes() -> None:
    state, before = torch.get_rng_state(), switches()
    with reproducible(3, CPU):
        drawn = torch.rand(4)
        assert (switches(), torch.get_num_threads()) == (before, 1)
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(state, torch.get_rng_state())
    assert WORKSPACE not in os.environ


def test_the_workspace_is_set_before_cuda_is_used(caplog: pytest.LogCaptureFixture) -> None:
    fix_cublas_workspace()
    fix_cublas_workspace()
    assert os.environ[WORKSPACE] == ":4096:8"
    assert not caplog.records


@pytest.mark.parametrize("value", [":4096:8", ":16:8"])
def test_a_deterministic_workspace_stays_as_it_is(
    value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(WORKSPACE, value)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    fix_cublas_workspace()
    assert os.environ[WORKSPACE] == value
    assert not caplog.records


@pytest.mark.parametrize(("value", "initialized"), [(None, True), (":4096:2", False), (":4096:2", True)])
def test_otherwise_one_line_says_what_to_export(
    value: str | None, initialized: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if value is not None:
        monkeypatch.setenv(WORKSPACE, value)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: initialized)
    fix_cublas_workspace()
    fix_cublas_workspace()
    (record,) = caplog.records
    assert f"export {WORKSPACE}=:4096:8" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert os.environ[WORKSPACE] == value or value is None
