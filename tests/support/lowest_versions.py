"""The lowest versions of the libraries that pyproject.toml promises: `python -m tests.support.lowest_versions`."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def lowest_versions(instead: Sequence[str] = ()) -> list[str]:
    """One `name==version` for each library that tombola needs on this Python and platform.

    Those of `instead`, such as `torch==2.13.0`, replace the lowest. Raises `ValueError` for a library without one.
    """
    replaced = {Requirement(each).name: each for each in instead}
    lines: list[str] = []
    for text in tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        lowest = [each.version for each in requirement.specifier if each.operator == ">="]
        if len(lowest) != 1:
            raise ValueError(f"pyproject.toml: {text} should have one lowest version, as in {requirement.name}>=1.0")
        lines.append(replaced.get(requirement.name, f"{requirement.name}=={lowest[0]}"))
    return lines


if __name__ == "__main__":
    print(*lowest_versions(sys.argv[1:]), sep="\n")  # noqa: T201 - it is a program
