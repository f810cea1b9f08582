"""Searches whose trainings an executor's workers make."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import tombola
from tests.support.errors import raises_input_error
from tests.support.executors import RecordingExecutor, SharingExecutor, processes
from tombola.utils.errors import TrainingsFailed

X = torch.randn(40, 10, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] + X[:, 1] > 0).long()


def make() -> nn.Sequential:
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 2))


def train(model: nn.Module) -> float:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(10):
        optimizer.zero_grad()
        functional.cross_entropy(model(X), Y).backward()
        optimizer.step()
    return float((model.eval()(X).argmax(1) == Y).float().mean())


SEARCH: dict[str, Any] = {"levels": 2, "replicates": 2, "rewind": 3, "controls": {"reinit": 1}, "progress": False}


def search(out: Path, executor: Executor | None = None, **options: Any) -> dict[str, bytes]:
    """The files of the results."""
    tombola.find_ticket(make, train, out=out, executor=executor, **SEARCH | options)
    return {path.name: path.read_bytes() for path in out.iterdir() if path.suffix in (".parquet", ".safetensors")}


@pytest.mark.parametrize("executor", [RecordingExecutor, SharingExecutor, lambda: processes(2)])
def test_results_are_those_without_one_byte_for_byte(executor: Callable[[], Executor], tmp_path: Path) -> None:
    alone = search(tmp_path / "alone" / "out")
    with executor() as used:
        assert search(tmp_path / "other" / "out", used) == alone
    assert len(alone) >= 2


def test_a_model_may_be_given_instead_of_a_function() -> None:
    model = make()
    tickets = [
        tombola.find_ticket(model, train, executor=executor, levels=1, progress=False).ticket
        for executor in (None, RecordingExecutor())
    ]
    assert tickets[0].mask == tickets[1].mask
    assert tickets[0].trained is not None
    assert tickets[1].trained is not None
    assert all(torch.equal(tensor, tickets[1].trained[name]) for name, tensor in tickets[0].trained.items())


def test_what_cannot_be_pickled_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:

        def logging_train(model: nn.Module) -> float:
            file.write("training")
            return train(model)

        with raises_input_error("executor", "pickle", "open files"):
            tombola.find_ticket(make, logging_train, executor=RecordingExecutor(), levels=1, progress=False)


def test_a_failing_function_is_named_with_its_error() -> None:
    def failing(_: nn.Module) -> float:
        raise ZeroDivisionError("of my own")

    with pytest.raises(TrainingsFailed, match=r"1 training failed 3 times.*ticket level 0.*of my own"):
        tombola.find_ticket(make, failing, executor=RecordingExecutor(), levels=1, progress=False)


OWN = """
import tombola, torch
from torch import nn
from helper import LR

def make():
    return nn.Linear(10, 2)

def train(model):
    loss = model(torch.ones(4, 10)).square().sum()
    (gradient,) = torch.autograd.grad(loss, [model.weight])
    with torch.no_grad():
        model.weight -= LR * gradient
    return float(-loss)
"""


def test_workers_need_not_have_the_users_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_training.py").write_text(OWN)
    (tmp_path / "helper.py").write_text("LR = 0.001")
    monkeypatch.syspath_prepend(tmp_path)
    own: Any = importlib.import_module("own_training")

    class Elsewhere(SharingExecutor):
        """Its workers do not find the modules."""

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            (tmp_path / "task").write_bytes(self.kept[args[0].engine.place])
            script = "import pickle, sys; print(type(pickle.load(open(sys.argv[1], 'rb'))).__name__)"
            shown = subprocess.run([sys.executable, "-c", script, tmp_path / "task"], capture_output=True, text=True)
            assert shown.stdout.strip() == "CustomEngine", shown.stderr
            return super().submit(fn, *args, **kwargs)

    assert tombola.find_ticket(own.make, own.train, executor=Elsewhere(), levels=1, progress=False).ticket
