"""The source distribution and the wheel: complete, alike however they are built, fit for PyPI, and the wheel runs."""

from __future__ import annotations

import email
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADDRESS = "https://github.com/tombola-ml/tombola/blob/"

MOST_WHEEL, MOST_SOURCE = 3_000_000, 10_000_000
"""Bytes."""


def build(source: Path, out: Path, *options: str) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), *options, str(source)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel built from that."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (file,) = dist.glob("*.whl")
    return file


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def description(wheel: Path) -> str:
    """The text that PyPI shows."""
    (metadata,) = (text for name, text in contents(wheel).items() if name.endswith(".dist-info/METADATA"))
    payload = email.message_from_bytes(metadata).get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode("utf-8")


def test_the_wheel_of_the_source_distribution_is_that_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    build(ROOT, tmp_path, "--wheel")
    (other,) = tmp_path.glob("*.whl")
    assert contents(other) == contents(wheel)


def test_pypi_accepts_the_distributions(dist: Path) -> None:
    files = sorted(map(str, dist.iterdir()))
    assert len(files) == 2
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_links_and_images_of_the_readme_work_on_pypi(wheel: Path) -> None:
    text = re.sub(r"```.*?```", "", description(wheel), flags=re.S)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'\b(?:href|src|srcset)="([^"]+)"', text)
    assert targets
    assert not [target for target in targets if not target.startswith(("https://", "#", "mailto:"))]
    version = wheel.name.split("-")[1]
    for target in targets:
        if target.startswith(ADDRESS):
            tag, _, path = target.removeprefix(ADDRESS).partition("/")
            assert tag == f"v{version}"
            assert (ROOT / path.partition("#")[0]).exists(), path


def test_the_code_of_the_readme_is_left_as_it_is(wheel: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```.*?```", readme, re.S)
    assert blocks == re.findall(r"```.*?```", description(wheel), re.S)


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    package = ROOT / "src" / "tombola"
    sources = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    expected = {f"tombola/{path.relative_to(package).as_posix()}" for path in sources}
    found = contents(wheel)
    assert {name for name in found if ".dist-info/" not in name} == expected
    assert "tombola/py.typed" in found
    assert any(name.endswith("/licenses/LICENSE") for name in found)
    assert wheel.stat().st_size < MOST_WHEEL


def test_the_source_distribution_has_what_the_tests_need(dist: Path) -> None:
    (file,) = dist.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert {"README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile"} <= set(names)
    tops = {name.partition("/")[0] for name in names if "/" in name}
    assert tops == {"src", "tests", "tools", "benchmarks", "examples", "docs"}
    stray = ("__pycache__", ".pyc", ".pytest_cache", ".ipynb_checkpoints", ".DS_Store")
    assert not [name for name in names if any(each in name for each in stray)]
    assert file.stat().st_size < MOST_SOURCE


def run_python(site: Path, folder: Path, code: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run `code` in `folder` with the packages in `site` before all others."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)


def test_the_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    settings = ["replicates=2", "search.levels=2", "training.length=40it"]
    arguments = ["run", "digits", "--json", "--workers", "1"]
    arguments += ["--engine", "eager"]  # others would compile their kernels anew for this place
    arguments += [part for setting in settings for part in ("--set", setting)]
    code = "import sys, tombola; print(tombola.__file__, file=sys.stderr); from tombola.cli import main; main()"
    done = run_python(site, tmp_path, code, arguments)
    assert done.stderr.startswith(str(site))
    assert json.loads(done.stdout)["runs"]["trained"] == 10
    assert (tmp_path / "results" / "digits" / "levels.parquet").is_file()
