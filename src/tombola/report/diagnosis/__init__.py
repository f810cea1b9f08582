"""The state of an installation: libraries, machine, folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tombola.report.diagnosis.finding import Finding, examine
from tombola.report.diagnosis.folders import cache, data, store
from tombola.report.diagnosis.machine import compilers, gpus, memory, platform_name, processor_name
from tombola.report.diagnosis.software import libraries, python, this_package, torch_build


def diagnose(
    data_dir: str | Path | None = None,
    store_place: str | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> list[Finding]:
    """Examine this installation. Nothing is downloaded or trained; no exception leaves it.

    `data_dir` is searched for datasets first; `store_place` is the store of runs, by default `results/.tombola`.
    `notify` is called with what is examined next.
    """
    checks = {
        ("software", "tombola"): this_package,
        ("software", "Python"): python,
        ("software", "libraries"): lambda: libraries(notify),
        ("software", "torch"): torch_build,
        ("machine", "platform"): platform_name,
        ("machine", "processor"): processor_name,
        ("machine", "memory"): memory,
        ("machine", "GPU"): gpus,
        ("machine", "compilers"): compilers,
        ("folders", "cache"): cache,
        ("folders", "store"): lambda: store(store_place),
        ("data", "data"): lambda: data(data_dir),
    }
    found: list[Finding] = []
    for (section, name), look in checks.items():
        notify(name)
        found += examine(section, name, look)
    return found
