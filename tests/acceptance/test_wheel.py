"""The built wheel contains the recipes and runs outside the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_runs_outside_the_checkout(tmp_path: Path) -> None:
    dist, site = tmp_path / "dist", tmp_path / "site"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = dist.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    settings = ["replicates=2", "search.levels=2", "training.length=40it"]
    arguments = ["run", "digits", "--json", "--workers", "1"]
    arguments += ["--engine", "eager"]  # others would compile their kernels anew for this place
    arguments += [part for setting in settings for part in ("--set", setting)]
    code = "import sys, tombola; print(tombola.__file__, file=sys.stderr); from tombola.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr.startswith(str(site))
    assert json.loads(done.stdout)["runs"]["trained"] == 10
    assert (tmp_path / "results" / "digits" / "levels.parquet").is_file()
