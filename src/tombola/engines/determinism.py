"""Determinism: the same run gives the same bits."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tombola.utils.random_state import preserve_rng_state

log = logging.getLogger(__name__)

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""The environment variable by which cuBLAS sums in the same order every time; cuBLAS reads it once."""

WORKSPACES = (":4096:8", ":16:8")
"""Its values that do, by NVIDIA's documentation of cuBLAS ("Results reproducibility"). The first is faster."""


@contextlib.contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Within it, torch's random state starts at `seed`, and torch is deterministic and uses one CPU thread. On CUDA,
    operations without a deterministic implementation warn."""
    cuda = device.type == "cuda"
    if cuda:
        fix_cublas_workspace()
    with preserve_rng_state([device] if cuda else []), contextlib.ExitStack() as restored:
        restored.callback(torch.set_num_threads, torch.get_num_threads())
        torch.default_generator.manual_seed(seed)
        torch.set_num_threads(1)
        if cuda:
            restored.enter_context(_deterministic_algorithms())
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextlib.contextmanager
def _deterministic_algorithms() -> Iterator[None]:
    with contextlib.ExitStack() as restored:
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        before = torch.are_deterministic_algorithms_enabled()
        restored.callback(torch.use_deterministic_algorithms, before, warn_only=warn_only)
        torch.use_deterministic_algorithms(True, warn_only=True)
        for setting, name in _SETTINGS:
            restored.callback(setattr, setting, name, getattr(setting, name))
            setattr(setting, name, False)
        restored.enter_context(sdpa_kernel(SDPBackend.MATH))  # fused attention is not deterministic where that warns
        yield


_SETTINGS: list[tuple[Any, str]] = [
    (torch.utils.deterministic, "fill_uninitialized_memory"),  # new tensors would be written twice, first with NaN
    (torch.backends.cudnn, "benchmark"),  # the fastest algorithm may be another one each time
]
"""What is switched off."""


def device_and_version(device: torch.device) -> str:
    """What the bits of a result may depend on besides its run: the device, of a GPU its model but not its number, and
    the version of torch."""
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return f"{device.type}{name}, torch {torch.__version__}"


def fix_cublas_workspace() -> None:
    """Set `CUBLAS_WORKSPACE_CONFIG` where it is not set, for this process and those that it starts.

    Call it before CUDA is first used: cuBLAS may have read it then. Otherwise there is a warning, and also if the
    variable has a value with which cuBLAS is not deterministic, which is left as it is.
    """
    value = os.environ.get(WORKSPACE)
    if value in WORKSPACES:
        return
    if value is None:
        os.environ[WORKSPACE] = WORKSPACES[0]
    if value is not None or torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        _warn_once(value)


@functools.cache
def _warn_once(value: str | None) -> None:
    found = "was not set before CUDA was first used" if value is None else f"is {value}"
    log.warning(
        "%s %s: the last bits of results may differ from run to run; export %s=%s before Python starts",
        *(WORKSPACE, found, WORKSPACE, WORKSPACES[0]),
    )
