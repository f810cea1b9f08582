"""Results to make reports of: a real tiny experiment, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import tiny
from tombola._run_experiment import run_experiment
from tombola.report.page import write_report


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the tiny recipe with three replicates; not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "tiny"
    recipe = tiny(replicates=3, training__length="30it", training__evaluate_every="10it", controls__reinit=1)
    run_experiment(recipe, out, command=COMMAND)
    return out


COMMAND = "tombola run tiny --out 'my results'"


@pytest.fixture(scope="session")
def page(finished: Path) -> Path:
    """Their report."""
    out = finished.parent / "page.html"
    write_report(finished, out)
    return out


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "tiny"))
