from __future__ import annotations

import pytest
import torch

from tests.engines.helpers import dense_run, same_bits, train
from tombola.engines.precision import autocast, matmul_precision
from tombola.runs.training import Precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def settings() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


def test_tf32_changes_nothing_on_a_cpu() -> None:
    before = settings()
    assert same_bits(train(dense_run()), train(dense_run(training__precision="tf32")))
    with matmul_precision("tf32", CPU):
        assert settings() == before


@pytest.mark.parametrize(
    ("precision", "within"), [("fp32", ("highest", False)), ("bf16", ("highest", False)), ("tf32", ("high", True))]
)
def test_on_cuda_torch_is_set_for_the_duration(precision: Precision, within: tuple[str, bool]) -> None:
    before, seen = settings(), []

    def failing() -> None:
        with matmul_precision(precision, CUDA):
            seen.append(settings())
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert seen == [within]
    assert settings() == before


@pytest.mark.parametrize(("precision", "wanted"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_is_for_bfloat16(precision: Precision, wanted: torch.dtype) -> None:
    with autocast(precision, CPU):
        assert torch.nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == wanted
