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


def procedure(x: int, y: int = 3) -> int:
    inner = [helper(value) for value in range(x)]
    return sum(inner) + y + len(TABLE)


def made(value: Any) -> Callable[[], Any]:
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


class Said(Slots):
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
    """One whose second layer is changed."""
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), Scale(1.0))
    for name, value in changes.items():
        setattr(made[2], name, value)
    return made


def dataset(value: float) -> torch.utils.data.Dataset[Any]:
    return torch.utils.data.TensorDataset(torch.full((3,), value))


def test_the_same_is_the_same() -> None:
    assert fingerprint(procedure) == fingerprint(procedure)
    assert len(fingerprint(procedure)) == 32
    assert fingerprint(made([1, "a", {2}])) == fingerprint(made([1, "a", {2}]))
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
        (functools.partial(procedure, 1), functools.partial(procedure, 2)),
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
    ],
)
def test_other_values_are_others_by_themselves_and_in_closures(one: Any, other: Any) -> None:
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(made(one)) != fingerprint(made(other))


def test_what_a_function_refers_to_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {fingerprint(procedure)}
    for name, value in (("FACTOR", 3), ("TABLE", {}), ("helper", lambda x: x + 1)):
        monkeypatch.setattr(f"{__name__}.{name}", value)
        seen.add(fingerprint(procedure))
    assert len(seen) == 4


def test_functions_within_functions_are_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    def outer() -> Callable[[], int]:
        return lambda: helper(FACTOR)

    before = fingerprint(outer)
    monkeypatch.setattr(f"{__name__}.FACTOR", 5)
    assert fingerprint(outer) != before


def test_methods_of_ones_own_classes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(Estimator(0.1))
    monkeypatch.setattr(f"{__name__}.FACTOR", 7)
    assert fingerprint(Estimator(0.1)) != before


def test_code_without_a_source_text_counts_as_compiled() -> None:
    functions = []
    for text in ("def f(): return 1", "def f(): return 2", "def f(): return 1"):
        namespace: dict[str, Any] = {"__name__": "__main__"}
        exec(text, namespace)
        functions.append(namespace["f"])
    assert fingerprint(functions[0]) == fingerprint(functions[2]) != fingerprint(functions[1])


def test_code_without_a_source_text_counts_with_the_names_in_it() -> None:
    found = set()
    for name in ("train", "eval"):
        namespace: dict[str, Any] = {"__name__": "__main__"}
        exec(f"def f(model): return model.{name}()", namespace)
        found.add(fingerprint(namespace["f"]))
    assert len(found) == 2


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
def test_other_modules_of_ones_own_are_followed(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_what_cannot_be_looked_into_counts_by_its_class() -> None:
    assert fingerprint(threading.Lock()) == fingerprint(threading.Lock()) != fingerprint(object())
    assert fingerprint(iter([1])) == fingerprint(iter([2]))


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_compressed_sparse_tensors_count_with_their_content() -> None:
    assert (
        fingerprint(EYE.to_sparse_csr()) == fingerprint(EYE.to_sparse_csr()) != fingerprint((2 * EYE).to_sparse_csr())
    )
    assert fingerprint(EYE.to_sparse_csc()) != fingerprint(EYE.to_sparse_csr())


def test_an_object_is_what_its_getstate_says() -> None:
    assert fingerprint(Said(1)) == fingerprint(Said(2)) != fingerprint(Slots(1))


def test_random_states_count_by_their_seed() -> None:
    torch_, numpy = torch.Generator().manual_seed(1), np.random.default_rng(1)
    before = fingerprint(torch_, numpy, np.random.default_rng())
    torch.rand(3, generator=torch_)
    numpy.random(3)
    assert fingerprint(torch_, numpy, np.random.default_rng()) == before


def test_hooks_of_a_network_are_no_part_of_it() -> None:
    hooked = teacher()
    hooked.register_forward_hook(lambda *_: None)
    assert fingerprint(hooked) == fingerprint(teacher())


def test_things_linked_and_nested_deeply_come_to_an_end() -> None:
    linked: Node | None = None
    nested: list[Any] = []
    for _ in range(5000):
        linked, nested = Node(linked), [nested]
    assert fingerprint(linked) != fingerprint(nested)


def test_attributes_that_raise_do_no_harm() -> None:
    class Raises:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(name)

    assert fingerprint(Raises()) == fingerprint(Raises())


def test_another_process_comes_to_the_same() -> None:
    program = (
        "import torch, functools\nfrom tombola.engines.custom.fingerprint import fingerprint\n"
        "data = {'a', 'b', 'c', ('d', 1)}, object()\n"
        "def made(value): return lambda x: (value, x in {'p', 'q', 'r'})\n"
        "torch.manual_seed(0)\nprint(fingerprint(made(data[0]), made(torch.compile(torch.nn.Linear(2, 2))), data[1]))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


def test_things_that_refer_to_themselves_come_to_an_end() -> None:
    loop: list[Any] = [1]
    loop.append(loop)

    def recursive(n: int) -> int:
        return n and recursive(n - 1)

    assert fingerprint(loop) != fingerprint(recursive)
