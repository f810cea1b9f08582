"""The README's commands and code do what it says."""

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

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")

TICKET = Path("results/digits/ticket.safetensors")


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("tombola ")]
    return [shlex.split(line)[1:] for line in lines]


def snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_commands_and_code_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    printed = {}
    for command in commands():
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

    _, _, sparse, onnx, _, run, load = snippets()
    exec(run, {})
    from tombola.zoo.models import build

    namespace = {"network": build(RecipeExperiment(load_recipe("digits")).dense(0).start)}
    exec(f"import tombola\n{load}", namespace)
    for name in ("network", "trained"):
        weights = sum(int((p != 0).sum()) for n, p in namespace[name].named_parameters() if n.endswith("weight"))
        assert weights == namespace["ticket"].mask.count

    # The exported files, in new processes: an image of a zero.
    image = torch.tensor(load_digits().images[0], dtype=torch.float32) / 16
    for snippet in (sparse, onnx):
        done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, check=True)
        assert int(done.stdout) == namespace["trained"](image[None]).argmax()


def test_the_readmes_search_with_a_custom_network_and_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    search, parts, _, _, ship, _, _ = snippets()
    from examples.plain_loop import x, y

    namespace: dict[str, Any] = {}
    exec(search.replace('"replicates": 8', '"replicates": 1'), namespace)  # eight take a minute
    ticket, levels = namespace["ticket"], namespace["levels"]
    assert levels[5].weights_left == pytest.approx(0.132, abs=1e-3)
    assert "13.2%" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "results" / "mine").iterdir()} >= {"levels.parquet", "experiment.toml"}
    namespace |= {"model": ticket.into(namespace["make"]()), "batches": [(x[:100], y[:100])]}
    exec(parts, namespace)
    assert namespace["mask"].count == 10_040
    assert namespace["held"].mask == namespace["mask"]
    exec(f"import tombola\n{ship}", namespace)
    x, model = namespace["batches"][0][0], namespace["model"].eval()
    for shipped in (namespace["small"], namespace["fast"]):
        assert (shipped(x) - model(x)).abs().max() < 1e-5
