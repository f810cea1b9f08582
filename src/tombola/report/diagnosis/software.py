"""Python, tombola, the libraries that it needs, and its extras."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tombola.report.diagnosis.finding import Finding, State
from tombola.utils.checkouts import own_commit
from tombola.utils.libraries import installed_version
from tombola.utils.trial_imports import trial_imports

DEVELOPMENT = ("benchmarks", "dev", "docs")
"""Extras that users do not need."""

MODULES = {"pillow": "PIL", "scikit-learn": "sklearn", "vl-convert-python": "vl_convert"}
"""Import names that are not the package's name with underscores."""

SHOWN = ("torch", "numba", "numpy")
"""Required libraries with a line of their own; the others share one."""

Notify = Callable[[str], None]


def this_package() -> Iterator[Finding]:
    """tombola's version, and its commit in a checkout."""
    commit = own_commit()
    version = metadata.version("tombola") + (f", commit {commit}" if commit else "")
    yield Finding("software", "tombola", f"{version}, in {Path(__file__).parents[2]}")


def python() -> Iterator[Finding]:
    implementation = platform.python_implementation()
    yield Finding("software", "Python", f"{platform.python_version()} ({implementation}), {sys.executable}")


def torch_build() -> Iterator[Finding]:
    """How torch was built, and its number of threads."""
    import torch

    device = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"
    parts = [f"built for {device}", f"instruction set {torch.backends.cpu.get_cpu_capability()}"]
    parts += [name for name, module in (("MKL", "mkl"), ("oneDNN", "mkldnn")) if _available(torch, module)]
    yield Finding("software", "torch's build", ", ".join([*parts, f"threads: {torch.get_num_threads()}"]))


def libraries(notify: Notify) -> Iterator[Finding]:
    """Whether each library is installed, in a supported version, and can be imported. Required ones without a problem
    share a line, but for the `SHOWN` ones."""
    wanted = [each for each in requirements() if each[0] not in DEVELOPMENT]
    versions = {requirement.name: installed_version(requirement.name) for _, requirement in wanted}
    installed = dict.fromkeys(module_name(name) for name, version in versions.items() if version is not None)
    failures = trial_imports([*installed], notify)
    shared: list[Finding] = []
    for extra, requirement in wanted:
        name = requirement.name
        found = _library(extra, requirement, versions[name], failures.get(module_name(name)))
        if extra or found.state != "ok" or name in SHOWN:
            yield found
        else:
            shared.append(found)
    if shared:
        yield Finding("software", "others", ", ".join(f"{each.name} {each.text}" for each in shared))


def requirements() -> list[tuple[str, Requirement]]:
    """tombola's requirements on this Python and platform, each with the name of its extra, or an empty one."""
    found: list[tuple[str, Requirement]] = []
    provided = metadata.metadata("tombola").get_all("Provides-Extra") or []
    for requirement in map(Requirement, metadata.requires("tombola") or []):
        extra = next((name for name in provided if f'extra == "{name}"' in str(requirement.marker)), "")
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            found.append((extra, requirement))
    return found


def module_name(package: str) -> str:
    return MODULES.get(package.lower(), package.replace("-", "_"))


def _library(extra: str, requirement: Requirement, version: str | None, failure: str | None) -> Finding:
    name, section = requirement.name, "extras" if extra else "software"
    bad: State = "warning" if extra else "error"
    install = f"pip install 'tombola[{extra}]'" if extra else f"pip install '{name}{requirement.specifier}'"
    if version is None and extra:
        return Finding(section, name, "not installed (optional)", advice=install)
    if version is None:
        return Finding(section, name, "not installed", "error", install)
    if failure is not None:
        advice = f"pip install --force-reinstall '{name}{requirement.specifier}'"
        return Finding(section, name, f"{version}, which cannot be imported: {failure}", bad, advice)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(section, name, f"{version}; tombola needs {requirement.specifier}", bad, install)
    return Finding(section, name, version)


def _available(torch: object, module: str) -> bool:
    return bool(getattr(getattr(torch, "backends", None), module).is_available())
