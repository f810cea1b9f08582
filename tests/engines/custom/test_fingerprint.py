from __future__ import annotations

import argparse
import collections
import dataclasses
import decimal
import functools
import importlib
import operator
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tombola.engines.custom.fingerprint import fingerprint

FACTOR = 2
TABLE = {"a": [1, 2.5], "b": ("x", None)}
EYE, ZEROS = torch.eye(3), torch.zeros(3, 3)


def helper(x: int) -> int:
    return x * FACTOR


def training(x: int, y: int = 3) -> int:
    inner = [helper(value) for value in range(x)]
    return sum(inner) + y + len(TABLE)


def closure_over(value: Any) -> Callable[[], Any]:
    return lambda: value


class Estimator:
    def __init__(self, lr: float) -> None:
        self.lr = lr

    def fit(self) -> float:
        return self.lr

    def __call__(self) -> int:
        return helper(1)


class Slots:
    __slots__ = ("n",)

    def __init__(self, n: int) -> None:
        self.n = n


class EmptyState(Slots):
    def __getstate__(self) -> None:
        return None


class Node:
    def __init__(self, following: Node | None) -> None:
        self.following = following


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    lr: float


def teacher(seed: int = 0, **changes: Any) -> nn.Module:
    """A network with changed attributes in its last layer."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), Scale(1.0))
    for name, value in changes.items():
        setattr(network[2], name, value)
    return network


class Marked(torch.Tensor):
    pass


class Called(nn.Sequential):
    def __call__(self, x: Any) -> Any:
        return 2 * super().__call__(x)


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


class Triple(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * x


def parametrized(how: nn.Module) -> nn.Module:
    network = teacher()
    nn.utils.parametrize.register_parametrization(network[0], "weight", how, unsafe=True)  # type: ignore[index]
    return network


def dataset(value: float) -> torch.utils.data.Dataset[Any]:
    return torch.utils.data.TensorDataset(torch.full((3,), value))


def test_equal_values_have_equal_fingerprints() -> None:
    assert fingerprint(training) == fingerprint(training)
    assert len(fingerprint(training)) == 32
    assert fingerprint(closure_over([1, "a", {2}])) == fingerprint(closure_over([1, "a", {2}]))
    assert fingerprint({1, 2, 3}) == fingerprint({3, 2, 1})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, 1.0),
        (1, True),
        ("1", 1),
        ([1, 2], [2, 1]),
        ([1, 2], (1, 2)),
        ([[1], 2], [1, [2]]),
        ({"lr": 0.1}, {"lr": 0.2}),
        (np.arange(3), np.arange(3.0)),
        (torch.zeros(2), torch.zeros(2, 1)),
        (torch.zeros(2), torch.tensor([0.0, 1.0])),
        (torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.float16)),
        (nn.ReLU, nn.GELU),
        (Estimator(0.1), Estimator(0.2)),
        (Estimator(0.1).fit, Estimator(0.2).fit),
        (functools.partial(training, 1), functools.partial(training, 2)),
        (torch.optim.SGD, torch.optim.Adam),
        ([], [[]]),
        ([[1], 2], [[1, 2]]),
        ({"a": {"b": 1}, "c": 2}, {"a": {"b": 1, "c": 2}}),
        ([TABLE, FACTOR, TABLE], [TABLE, FACTOR, FACTOR]),
        ([EYE, ZEROS, EYE], [EYE, ZEROS, ZEROS]),
        ([{}], []),
        (argparse.Namespace(lr=0.1), argparse.Namespace(lr=0.2)),
        (SimpleNamespace(lr=0.1), SimpleNamespace(lr=0.2)),
        (Settings(0.1), Settings(0.2)),
        (Slots(1), Slots(2)),
        (collections.deque([1]), collections.deque([2])),
        (range(10), range(20)),
        (slice(10), slice(20)),
        (decimal.Decimal("0.1"), decimal.Decimal("0.2")),
        (re.compile("a"), re.compile("b")),
        (operator.itemgetter(1), operator.itemgetter(2)),
        (nn.CrossEntropyLoss(label_smoothing=0.1), nn.CrossEntropyLoss(label_smoothing=0.3)),
        (teacher(0), teacher(1)),
        (teacher(), teacher(factor=2.0)),
        (teacher(), teacher().requires_grad_(False)),
        (teacher(), teacher(training=False)),
        (dataset(1.0), dataset(2.0)),
        (torch.utils.data.DataLoader(dataset(1.0)), torch.utils.data.DataLoader(dataset(2.0))),
        (torch.utils.data.DataLoader(dataset(1.0)), torch.utils.data.DataLoader(dataset(1.0), batch_size=2)),
        (torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)),
        (np.random.default_rng(1), np.random.default_rng(2)),
        (EYE.to_sparse(), (2 * EYE).to_sparse()),
        (torch.tensor([1 + 1j]).conj(), torch.tensor([1 + 1j])),
        (torch.empty(3, device="meta"), torch.empty(4, device="meta")),
        (torch.ones(3), torch.ones(3).as_subclass(Marked)),
        (teacher(), teacher(forward=lambda x: x)),
        (teacher(), teacher(_hook_scale=2.0)),
        (parametrized(Double()), parametrized(Triple())),
        (parametrized(Double()), teacher()),
        (teacher(), Called(*teacher())),
    ],
)
def test_different_values_have_different_fingerprints_also_in_closures(one: Any, other: Any) -> None:
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(closure_over(one)) != fingerprint(closure_over(other))


def test_what_a_function_refers_to_is_included(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {fingerprint(training)}
    for name, value in (("FACTOR", 3), ("TABLE", {}), ("helper", lambda x: x + 1)):
        monkeypatch.setattr(f"{__name__}.{name}", value)
        seen.add(fingerprint(training))
    assert len(seen) == 4


def outer() -> Callable[[], int]:
    return lambda: helper(FACTOR)


def test_inner_functions_and_methods_of_user_classes_are_included(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [fingerprint(outer), fingerprint(Estimator(0.1))]
    monkeypatch.setattr(f"{__name__}.FACTOR", 5)
    after = [fingerprint(outer), fingerprint(Estimator(0.1))]
    assert not {*before} & {*after}


def test_code_without_source_counts_by_its_bytecode_and_names() -> None:
    found = []
    for value in ("1", "2", "m.train()", "m.eval()", "1"):
        namespace: dict[str, Any] = {"__name__": "__main__"}
        exec(f"def f(m): return {value}", namespace)
        found.append(fingerprint(namespace["f"]))
    assert found[0] == found[-1]
    assert len({*found}) == 4


@pytest.mark.parametrize(
    "text",
    [
        "import helper\ndef train(m): return helper.f(m)",
        "import helper\ndef train(m): return helper.TABLE['lr']",
        "def train(m):\n    from helper import f\n    return f(m)",
        "import helper\nclass Mine(helper.Base): pass\ntrain = Mine()",
        "import helper\nclass Mine(helper.Base): pass\ntrain = Mine().fit",
        "from helper import f\nclass Mine:\n    @staticmethod\n    def go(m): return f(m)\ntrain = Mine()",
        "from helper import f\nclass Mine:\n    @classmethod\n    def go(cls, m): return f(m)\ntrain = Mine()",
        "from helper import f\nclass Mine:\n    @property\n    def go(self): return f(1)\ntrain = Mine()",
        "import functools\nfrom helper import f\nclass Mine:\n    @functools.cached_property\n"
        "    def go(self): return f(1)\ntrain = Mine()",
        "from helper import TABLE\nclass Mine:\n    lr = TABLE['lr'] * 2\ntrain = Mine()",
        "import functools\nfrom helper import f\n@functools.cache\ndef data(): return f(1)\n"
        "def train(m): return data()",
        "from helper import wrapping\n@wrapping\ndef train(m): return 1",
        "import contextlib\nfrom helper import f\n@contextlib.contextmanager\ndef train(m): yield f(m)",
        "import torch\nfrom helper import f\n@torch.no_grad()\ndef train(m): return f(m)",
    ],
)
def test_other_modules_of_the_user_are_included(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = (
        "import functools\nTABLE = {{'lr': {0}}}\ndef f(m): return {0}\n"
        "class Base:\n    def fit(self, m): return {0}\n"
        "def wrapping(function):\n    @functools.wraps(function)\n    def wrapper(m): return {0} * function(m)\n"
        "    return wrapper\n"
    )
    found = []
    for number, value in enumerate((1, 2, 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "helper.py").write_text(helper.format(value))
        (folder / "users.py").write_text(text)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            found.append(fingerprint(importlib.import_module("users").train))
        for name in ("helper", "users"):
            del sys.modules[name]
    assert found[0] == found[2] != found[1]


def test_objects_that_cannot_be_inspected_count_by_their_class() -> None:
    assert fingerprint(threading.Lock()) == fingerprint(threading.Lock()) != fingerprint(object())
    assert fingerprint(iter([1])) == fingerprint(iter([2]))


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_compressed_sparse_tensors_include_their_content() -> None:
    assert (
        fingerprint(EYE.to_sparse_csr()) == fingerprint(EYE.to_sparse_csr()) != fingerprint((2 * EYE).to_sparse_csr())
    )
    assert fingerprint(EYE.to_sparse_csc()) != fingerprint(EYE.to_sparse_csr())


def test_an_object_counts_by_its_getstate() -> None:
    assert fingerprint(EmptyState(1)) == fingerprint(EmptyState(2)) != fingerprint(Slots(1))


def test_random_states_count_by_their_seed() -> None:
    torch_, numpy = torch.Generator().manual_seed(1), np.random.default_rng(1)
    before = fingerprint(torch_, numpy, np.random.default_rng())
    torch.rand(3, generator=torch_)
    numpy.random(3)
    assert fingerprint(torch_, numpy, np.random.default_rng()) == before


def test_deep_nesting_is_no_recursion() -> None:
    linked: Node | None = None
    nested: list[Any] = []
    for _ in range(5000):
        linked, nested = Node(linked), [nested]
    assert fingerprint(linked) != fingerprint(nested)


def test_attributes_may_raise() -> None:
    class Raises:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(name)

    assert fingerprint(Raises()) == fingerprint(Raises())


def test_another_process_gives_the_same_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes of strings, and so the order of sets, differ between processes."""
    words = [str(number) for number in range(20)]
    text = f"data = set({words}), object()\ndef train(m): return m in {{{str(words)[1:-1]}}}, data"
    (tmp_path / "in_two_processes.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    train = importlib.import_module("in_two_processes").train
    program = (
        "from in_two_processes import train\n"
        "from tombola.engines.custom.fingerprint import fingerprint\nprint(fingerprint(train))"
    )
    other = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONHASHSEED": other, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        check=True,
        text=True,
    ).stdout.strip()
    assert found == fingerprint(train)


def test_a_compiled_network_counts_as_the_network() -> None:
    one, same, other = (torch.compile(teacher(seed), backend="eager") for seed in (0, 0, 1))
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)


def test_circular_references_end() -> None:
    loop: list[Any] = [1]
    loop.append(loop)

    def recursive(n: int) -> int:
        return n and recursive(n - 1)

    assert fingerprint(loop) != fingerprint(recursive)
