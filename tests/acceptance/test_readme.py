"""The commands and code of the README and of the pages that it leads to do what they say."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from tests.support.digits_tickets import digits_ticket
from tombola.cli import app
from tombola.experiments.recipe import load_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.zoo.models import build

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
RECIPES = ROOT / "docs/how-to/recipes.md"
STARTED = ROOT / "docs/getting-started.md"
SHIPPING = ROOT / "docs/how-to/shipping.md"

TICKET = Path("results/digits/ticket.safetensors")


def commands(page: Path) -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("tombola ")]
    return [shlex.split(line)[1:] for line in lines]


def snippets(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_the_commands_and_code_of_the_recipes_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    printed = {}
    for command in [*commands(RECIPES), ["ticket", "export", str(TICKET)]]:
        if "lenet-mnist" in command:  # takes minutes to hours: only parse it
            overrides = [part for before, part in pairwise(command) if before == "--set"]
            assert load_recipe("lenet-mnist", overrides).replicates == 2
            continue
        if command[0] == "ticket" and not TICKET.exists():  # with some roundings no ticket wins
            digits_ticket("lenet").save(TICKET)
        result = runner.invoke(app, command)
        assert result.exit_code == (2 if "training.optimiser=adam" in command else 0), result.stderr
        printed[" ".join(command)] = result.stdout
    assert "300 runs trained" in printed["run digits"]

    summary = json.loads(printed["show results/digits --json"])
    assert (summary["replicates"], len(summary["levels"])) == (20, 8)
    assert summary["levels"][3]["weights_left"] <= 0.2
    assert summary["levels"][-1]["weights_left"] < 0.025

    run, load, sparse, onnx = snippets(RECIPES)
    exec(run, {})
    namespace: dict[str, Any] = {"network": build(RecipeExperiment(load_recipe("digits")).dense(0).start)}
    exec(f"import tombola\n{load}", namespace)
    for name in ("network", "trained"):
        weights = sum(int((p != 0).sum()) for n, p in namespace[name].named_parameters() if n.endswith("weight"))
        assert weights == namespace["ticket"].mask.count

    # The exported files, in new processes: an image of a zero.
    image = torch.tensor(load_digits().images[0], dtype=torch.float32) / 16
    for snippet in (sparse, onnx):
        done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, check=True)
        assert int(done.stdout) == namespace["trained"](image[None]).argmax()


def test_the_shipping_page_exports_the_ticket_of_the_recipes_page() -> None:
    assert commands(SHIPPING)[0] == ["ticket", "export", str(TICKET)]


def test_getting_started_has_the_readmes_search() -> None:
    assert snippets(STARTED) == snippets(README)[:1]


def test_the_readmes_code_runs_as_pasted(tmp_path: Path) -> None:
    """With one replicate in place of eight, which take a minute."""
    search, use = snippets(README)
    assert "replicates=8" in search
    checks = """
assert abs(levels[5].weights_left - 0.132) < 1e-3
assert ticket.mask.density < 1
assert held.mask == ticket.mask
for shipped in (small, fast):
    expected = model.eval()(x)
    assert (shipped(x) - expected).abs().max() < 1e-6 * expected.abs().max()
"""
    program = tmp_path / "pasted.py"
    program.write_text(search.replace("replicates=8", "replicates=1") + use + checks, encoding="utf-8")
    done = subprocess.run([sys.executable, program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mine: 1 replicate" in done.stdout
    assert {path.name for path in (tmp_path / "results/mine").iterdir()} >= {"levels.parquet", "report.html"}
