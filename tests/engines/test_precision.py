"""Each history of torch's settings is made in a process of its own, because some cannot be undone."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.support.training import dense_run, same_bits, train_alone
from tombola.engines import precision as module
from tombola.engines.precision import autocast, matmul_precision
from tombola.runs.run import Precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
newer = pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="needs torch 2.9")

HISTORIES = [
    "",
    *(f"b.fp32_precision = '{value}'" for value in ("ieee", "tf32", "bf16")),
    *(f"b.cudnn.fp32_precision = '{value}'" for value in ("ieee", "tf32", "none")),
    *(f"b.cuda.matmul.fp32_precision = '{value}'" for value in ("ieee", "tf32", "none")),
    *(f"b.cudnn.conv.fp32_precision = '{value}'" for value in ("ieee", "tf32", "none")),
    *(f"b.cudnn.rnn.fp32_precision = '{value}'" for value in ("ieee", "tf32", "none")),
    *(f"torch.set_float32_matmul_precision('{value}')" for value in ("highest", "high", "medium")),
    *(f"b.cuda.matmul.allow_tf32 = {value}" for value in (True, False)),
    *(f"b.cudnn.allow_tf32 = {value}" for value in (True, False)),
    "b.fp32_precision = 'tf32'; b.cudnn.fp32_precision = 'tf32'",
    "b.fp32_precision = 'tf32'; b.cudnn.fp32_precision = 'ieee'",
    "b.fp32_precision = 'ieee'; b.cudnn.fp32_precision = 'ieee'",
    "b.fp32_precision = 'ieee'; b.cuda.matmul.fp32_precision = 'tf32'",
    "b.cudnn.fp32_precision = 'tf32'; b.cudnn.conv.fp32_precision = 'ieee'",
    "torch.set_float32_matmul_precision('high'); b.cuda.matmul.fp32_precision = 'ieee'",
    "b.cudnn.allow_tf32 = False; b.cudnn.conv.fp32_precision = 'tf32'",
]

PROGRAM = """
import json, os, sys, warnings
import torch, torch.backends as b
from tombola.engines.precision import matmul_precision

warnings.simplefilter("ignore")  # the older functions are deprecated
operations = [b.cuda.matmul, b.cudnn.conv, b.cudnn.rnn]
others = [b, b.cudnn, b.mkldnn, b.mkldnn.matmul]
older = ["torch.get_float32_matmul_precision()", "b.cuda.matmul.allow_tf32", "b.cudnn.allow_tf32"]

def value(expression):
    try:
        return eval(expression)
    except RuntimeError:  # newer and older settings do not agree
        return "raises"

def seen():
    return [each.fp32_precision for each in operations + others] + [value(each) for each in older]

def afterwards():  # what there is, and what later settings make of it
    values = [seen()]
    for level in (b, b.cudnn):
        for precision in ("ieee", "tf32", "none"):
            level.fp32_precision = precision
            values.append(seen())
    return values

def observed(history, precision):
    exec(history)
    if precision is None:
        return afterwards()
    try:
        with matmul_precision(precision, torch.device("cuda")):
            within = [each.fp32_precision for each in operations]
            raise KeyError
    except KeyError:
        return within, afterwards()

def in_a_process(*case):
    reading, writing = os.pipe()
    if not os.fork():
        os.write(writing, json.dumps(observed(*case)).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as result:
        text = result.read()
    os.wait()
    return json.loads(text)

cases = [(history, precision) for history in json.load(sys.stdin) for precision in (None, "fp32", "bf16", "tf32")]
print(json.dumps([in_a_process(*case) for case in cases]))
"""


@pytest.fixture(scope="module")
def results() -> dict[tuple[str, str | None], Any]:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], input=json.dumps(HISTORIES), capture_output=True, text=True)
    assert not ran.returncode, ran.stderr
    cases = [(history, precision) for history in HISTORIES for precision in (None, "fp32", "bf16", "tf32")]
    return dict(zip(cases, json.loads(ran.stdout), strict=True))


@newer
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize(("precision", "wanted"), [("fp32", "ieee"), ("bf16", "ieee"), ("tf32", "tf32")])
def test_on_cuda_the_precision_is_set_and_all_settings_are_as_before(
    history: str, precision: str, wanted: str, results: dict[tuple[str, str | None], Any]
) -> None:
    within, after = results[history, precision]
    assert within == [wanted] * 3
    assert after == results[history, None]


def test_the_histories_differ(results: dict[tuple[str, str | None], Any]) -> None:
    assert len({json.dumps(results[history, None]) for history in HISTORIES}) > 15


def older_settings() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("precision", "within"), [("fp32", ("highest", False)), ("bf16", ("highest", False)), ("tf32", ("high", True))]
)
def test_older_versions_of_torch_have_two_settings(
    precision: Precision, within: tuple[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BY_OPERATION", False)
    before, seen = older_settings(), []

    def failing() -> None:
        with matmul_precision(precision, CUDA):
            seen.append(older_settings())
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert seen == [within]
    assert older_settings() == before


def test_tf32_changes_nothing_on_a_cpu() -> None:
    before = older_settings()
    assert same_bits(train_alone(dense_run()), train_alone(dense_run(training__precision="tf32")))
    with matmul_precision("tf32", CPU):
        assert older_settings() == before


@pytest.mark.parametrize(("precision", "wanted"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_is_used_for_bfloat16_only(precision: Precision, wanted: torch.dtype) -> None:
    with autocast(precision, CPU):
        assert torch.nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == wanted
