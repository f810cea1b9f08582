from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tombola.procedure import digest

FACTOR = 2
TABLE = {"a": [1, 2.5], "b": ("x", None)}


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


def test_the_same_is_the_same() -> None:
    assert digest(procedure) == digest(procedure)
    assert len(digest(procedure)) == 32
    assert digest(made([1, "a", {2}])) == digest(made([1, "a", {2}]))
    assert digest({1, 2, 3}) == digest({3, 2, 1})


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
    ],
)
def test_other_values_are_others_by_themselves_and_in_closures(one: Any, other: Any) -> None:
    assert digest(one) != digest(other)
    assert digest(made(one)) != digest(made(other))


def test_what_a_function_refers_to_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {digest(procedure)}
    for name, value in (("FACTOR", 3), ("TABLE", {}), ("helper", lambda x: x + 1)):
        monkeypatch.setattr(f"{__name__}.{name}", value)
        seen.add(digest(procedure))
    assert len(seen) == 4


def test_functions_within_functions_are_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    def outer() -> Callable[[], int]:
        return lambda: helper(FACTOR)

    before = digest(outer)
    monkeypatch.setattr(f"{__name__}.FACTOR", 5)
    assert digest(outer) != before


def test_methods_of_ones_own_classes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(Estimator(0.1))
    monkeypatch.setattr(f"{__name__}.FACTOR", 7)
    assert digest(Estimator(0.1)) != before


def test_code_without_a_source_text_counts_as_compiled() -> None:
    functions = []
    for text in ("def f(): return 1", "def f(): return 2", "def f(): return 1"):
        namespace: dict[str, Any] = {"__name__": "__main__"}
        exec(text, namespace)
        functions.append(namespace["f"])
    assert digest(functions[0]) == digest(functions[2]) != digest(functions[1])


def test_what_cannot_be_looked_into_counts_by_its_class() -> None:
    assert digest(Slots(1)) == digest(Slots(2))
    assert digest(Slots(1)) != digest(object())


def test_things_that_refer_to_themselves_come_to_an_end() -> None:
    loop: list[Any] = [1]
    loop.append(loop)

    def recursive(n: int) -> int:
        return n and recursive(n - 1)

    assert digest(loop) != digest(recursive)
