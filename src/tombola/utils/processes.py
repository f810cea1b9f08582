"""Names of processes, by which others, also on other machines, can tell whether their files are still used."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import sys
import uuid
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
"""Text that a Linux kernel makes when it starts."""


def process_name() -> str:
    """Of this process: `HOST.PID`, where HOST are 8 hexadecimal digits that stand for the machine."""
    return f"{_host()}.{os.getpid()}"


def has_ended(name: str) -> bool:
    """Whether the process with this name is known to have ended: it ran on this machine, and runs no longer. A name
    that is not one of `process_name` says nothing."""
    host, _, pid = name.partition(".")
    return host == _host() and pid.isascii() and pid.isdigit() and not _runs(int(pid))


def on_this_machine(name: str) -> bool:
    """Whether the process with this name ran on this machine, and in this container. A name that is not one of
    `process_name` says nothing, and counts as one of this machine."""
    host, dot, _ = name.partition(".")
    return not dot or host == _host()


@functools.cache
def _host() -> str:
    """Machines, and containers, may share a name. But machines have different kernels, and containers on one have
    different namespaces of process numbers; outside containers that is the same one on all machines."""
    try:
        kernel = BOOT.read_text(encoding="ascii").strip()
    except OSError:  # only Linux has it
        kernel = str(uuid.getnode())
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:  # only Linux has them
        namespace = 0
    return hashlib.sha256(f"{platform.node()} {kernel} {namespace}".encode()).hexdigest()[:8]


def _runs(pid: int) -> bool:
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32
        if handle := kernel.OpenProcess(0x00100000, False, pid):  # SYNCHRONIZE
            ended: bool = kernel.WaitForSingleObject(handle, 0) == 0
            kernel.CloseHandle(handle)
            return not ended
        return bool(kernel.GetLastError() != 87)  # ERROR_INVALID_PARAMETER: there is none
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # someone else's
        return True
    return True
