"""The machine: platform, processor, memory, GPUs, compilers."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import warnings
from collections.abc import Iterator

from tombola.report.diagnosis.finding import Finding
from tombola.utils.text import byte_size, first_line

LITTLE_MEMORY = 2e9
"""Bytes."""
COMPILERS = ("cc", "clang", "nvcc")


def platform_name() -> Iterator[Finding]:
    yield Finding("machine", "platform", f"{platform.platform()}, {platform.machine()}")


def processor_name() -> Iterator[Finding]:
    from tombola.utils.workers import cores, processor

    yield Finding("machine", "processor", processor())
    usable, all_of_them = cores(), os.cpu_count() or 1
    yield Finding("machine", "cores", f"{usable}" + (f" of {all_of_them}" if usable < all_of_them else ""))


def memory() -> Iterator[Finding]:
    from tombola.utils.memory import total_memory

    total = total_memory()
    if not total:
        yield Finding("machine", "memory", "unknown")
    elif total < LITTLE_MEMORY:
        advice = "use fewer --workers; `tombola run RECIPE --dry-run` says what an experiment takes"
        yield Finding("machine", "memory", byte_size(total), "warning", advice)
    else:
        yield Finding("machine", "memory", byte_size(total))


def gpus() -> Iterator[Finding]:
    """Each GPU, after a trial; or why none is used."""
    import torch

    driver = shutil.which("nvidia-smi") is not None
    if torch.version.cuda is None:
        if driver:
            advice = "install a CUDA build of torch: https://pytorch.org/get-started/locally/"
            yield Finding(
                "machine", "GPU", "an NVIDIA driver, but torch is built for the CPU only", "warning", advice
            )
        else:
            yield Finding("machine", "GPU", "none: torch is built for the CPU only")
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count()
        usable = torch.cuda.is_available()
    if not usable:
        hidden = "CUDA_VISIBLE_DEVICES" in os.environ and "CUDA_VISIBLE_DEVICES is set"
        reason = caught[0].message if caught else hidden or ("" if driver else "no NVIDIA driver")
        text = f"none can be used: {first_line(RuntimeError(str(reason or 'no device')))}"
        yield Finding("machine", "GPU", text, "warning" if driver else "ok", "see `nvidia-smi`" if driver else "")
    for number in range(count if usable else 0):
        yield _gpu(number)


def _gpu(number: int) -> Finding:
    """A GPU that has computed something, or cannot."""
    import torch

    name = f"GPU {number}"
    try:
        device = torch.cuda.get_device_properties(number)
        text = f"{device.name}, {byte_size(device.total_memory)}, capability {device.major}.{device.minor}"
        torch.zeros(1, device=f"cuda:{number}").add_(1).item()
    except Exception as error:  # noqa: BLE001 - drivers and torch fail in many ways
        advice = "update the driver, or install a torch for this driver: https://pytorch.org/get-started/locally/"
        return Finding("machine", name, f"cannot be used: {first_line(error)}", "warning", advice)
    return Finding("machine", name, text)


def compilers() -> Iterator[Finding]:
    """Compilers that are found. `torch.compile` and Triton need one; nothing else does."""
    found = [(name, path) for name in COMPILERS if (path := shutil.which(name))]
    text = "; ".join(f"{path} ({_compiler_version(path)})" for _, path in found)
    yield Finding("machine", "compilers", text or "none; only torch.compile and Triton need one")


def _compiler_version(path: str) -> str:
    """The first line with a number that it prints about itself."""
    try:
        ran = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError) as error:
        return f"fails: {first_line(error)}"
    lines = ran.stdout.splitlines()
    return next((line for line in lines if "release" in line), lines[0] if lines else "no version")
