"""The tests that need a CUDA device."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.device.parts import Findings, Place

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
COUNTED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
"""With these the report says everything."""


def tests(place: Place) -> Findings:
    """Run them; in a rehearsal only collect them. A test module that cannot be imported is listed, but not wrong: it
    may test something that this machine does not have."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
        # Warnings are errors there, and other versions of libraries have others.
        command += ["-W", "default", "-m", "cuda and not slow", f"--junitxml={report}"]
        command += [str(path) for path in TESTS.rglob("test_*.py") if "cuda" in path.read_text(encoding="utf-8")]
        if place.rehearsal:
            command.append("--collect-only")
        ran = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, timeout=max(1, place.left), check=False
        )
        if not report.exists() or ran.returncode not in COUNTED:
            return Findings([], [line for line in (ran.stdout + ran.stderr).splitlines() if line][-3:])
        if place.rehearsal:
            return Findings([{"collected": ran.stdout.strip().rpartition("\n")[2]}])
        return findings(report)


def findings(report: Path) -> Findings:
    """What a JUnit report says."""
    outcomes: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": [], "not imported": []}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}".removeprefix("::")
        problem = case.find("failure") if case.find("failure") is not None else case.find("error")
        if problem is None:
            outcomes["passed" if case.find("skipped") is None else "skipped"].append(name)
        elif "collection" in (problem.get("message") or ""):
            outcomes["not imported"].append(name)
        else:
            message = (problem.get("message") or "").partition("\n")[0]
            outcomes["failed"].append(f"{name}: {message[:200]}")
    wrong = outcomes["failed"] + ([] if outcomes["passed"] else ["no test has passed"])
    rows = [{"tests": kind, "count": len(names)} for kind, names in outcomes.items()]
    rows += [{"tests": f"not imported: {name}"} for name in outcomes["not imported"]]
    return Findings(rows, wrong)
