from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.triton_kernels import DEVICE, needs_triton


@needs_triton
@pytest.mark.skipif(DEVICE.type == "cuda", reason="there, other tests compile them")
def test_every_kernel_compiles_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.support.compile_kernels", "90"]
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONWARNINGS": "error"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = [line.split()[0] for line in done.stdout.splitlines()]
    step = [
        "_product",
        "_product",
        "_cross_entropy",
        "_product",
        "_weight_update",
        "_weight_update",
        "_masked_update",
    ]
    assert names == step * 2
