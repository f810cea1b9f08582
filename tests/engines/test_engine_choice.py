from __future__ import annotations

import os

import pytest
import torch

from tests.support.errors import raises_input_error
from tombola.engines import check_engine, engine
from tombola.engines.determinism import WORKSPACE
from tombola.engines.eager import Eager
from tombola.engines.sparse.engine import Sparse
from tombola.engines.stacked.engine import Stacked


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv(WORKSPACE, "")  # so that it is restored
    monkeypatch.delenv(WORKSPACE)


@pytest.mark.usefixtures("two_gpus")
def test_without_knowing_the_runs_auto_is_the_cpu() -> None:
    assert engine("auto") == engine("auto", device="auto") == Sparse(None, "cpu")
    assert engine("eager") == Eager(None, "cpu")
    assert WORKSPACE not in os.environ


@pytest.mark.usefixtures("two_gpus")
def test_engines_on_cuda_know_how_many_workers_share_the_device() -> None:
    assert engine("auto", None, "cuda", 3) == Stacked(None, "cuda", sharing=3)
    assert engine("eager", "data", "cuda:1", 2) == Eager("data", "cuda:1", sharing=2)


@pytest.mark.usefixtures("two_gpus")
def test_cublas_is_deterministic_from_the_choice_of_cuda_on() -> None:
    engine("stacked", device="cpu")
    assert WORKSPACE not in os.environ
    engine("stacked", device="cuda:1")
    assert os.environ[WORKSPACE] == ":4096:8"


@pytest.mark.usefixtures("two_gpus")
def test_what_cannot_be_chosen_is_refused() -> None:
    for device in ("auto", "cpu", "cuda", "cuda:1"):
        check_engine("stacked", device)
    for name, device, parts in [
        ("stackd", "auto", ["stackd", "stacked", "auto"]),
        ("stacked", "autos", ["autos", "auto"]),
        ("stacked", "cuda:", ["cuda:", "auto", "cpu"]),
        ("auto", "cuda:2", ["cuda:2", "2 CUDA devices"]),
        ("sparse", "cuda", ["sparse", "cpu"]),
    ]:
        with raises_input_error(*parts):
            check_engine(name, device)
        with raises_input_error(*parts):
            engine(name, device=device)


@pytest.mark.parametrize("engine_class", [Eager, Stacked])
def test_the_name_of_an_engine_has_the_model_of_the_gpu_but_not_its_number(
    engine_class: type[Eager | Stacked], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"Test {device.type}")
    names = {engine_class(None, device).name for device in ("cuda", "cuda:0", "cuda:1")}
    assert names == {f"{engine_class.__name__.lower()} on cuda (Test cuda), torch {torch.__version__}"}
    assert engine_class().name == f"{engine_class.__name__.lower()} on cpu, torch {torch.__version__}"
