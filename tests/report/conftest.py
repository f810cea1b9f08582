"""The results of a real tiny experiment, computed once, and their report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.recipes import tiny
from tombola._run_experiment import run_experiment
from tombola.report.page import write_report


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the tiny recipe with three replicates; tests must not change them."""
    out = tmp_path_factory.mktemp("finished") / "tiny"
    recipe = tiny(replicates=3, training__length="30it", training__evaluate_every="10it", controls__reinit=1)
    run_experiment(recipe, out, command=COMMAND)
    return out


COMMAND = "tombola run tiny --out 'my results'"


@pytest.fixture(scope="session")
def page(finished: Path) -> Path:
    """The report of the results."""
    out = finished.parent / "page.html"
    write_report(finished, out)
    return out


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """A copy of the results that tests may change."""
    return Path(shutil.copytree(finished, tmp_path / "tiny"))
