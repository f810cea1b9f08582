"""Completions are asked for as the shells do, by variables of the environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import tombola
from tests.test_imports import HEAVY
from tombola.cli import completion
from tombola.engines import ENGINES
from tombola.integrations.loggers import LOGGERS

PROGRAM = f"""
import sys
from tombola.cli import main
sys.argv = ["tombola"]
try:
    main()
finally:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


def _asked(shell: str, words: str) -> list[str]:
    """The lines that `shell` gets when the last of these words is to be completed, without importing torch."""
    variables = {"_TOMBOLA_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": words}
    variables |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    variables |= {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    ran = subprocess.run([sys.executable, "-c", PROGRAM], env=os.environ | variables, capture_output=True, text=True)
    assert ran.stderr.splitlines() == ["[]"]
    return ran.stdout.splitlines()


def _candidates(words: str) -> list[str]:
    return _asked("bash", words)


def test_recipes_and_files_are_completed() -> None:
    for command in ("run", "sweep"):
        assert {"digits", "digits-set"} <= {*_candidates(f"tombola {command} dig")}
    assert _candidates("tombola run ti") == ["tiny.toml"]
    assert _candidates("tombola recipes vgg19-cifar10-s") == ["vgg19-cifar10-small"]


def test_keys_are_completed_then_their_values() -> None:
    keys = _candidates("tombola run digits --set training.")
    assert {"training.lr=", "training.optimizer="} <= {*keys}
    assert _candidates("tombola run digits --set training.lr") == ["training.lr=", "training.lr=0.2"]
    assert _candidates("tombola sweep digits --grid search.scop")[1:] == [
        *("search.scope=layer", "search.scope=row", "search.scope=global", "search.scope=erk")
    ]
    assert "controls.reinit=" in _candidates("tombola run digits --set controls.")


def test_bash_which_splits_words_at_equals_gets_values_alone() -> None:
    assert _candidates("tombola run digits --set training.optimizer = a") == ["adam", "adamw"]
    assert _candidates("tombola run digits --set training.optimizer =") == ["adam", "adamw", "sgd"]
    assert _candidates("tombola run tiny.toml --set seed=1 --set replicates = ") == ["2"]


def test_other_shells_get_the_whole_word() -> None:
    (line,) = _asked("zsh", "tombola run digits --set training.optimizer=s")
    assert "training.optimizer=sgd" in line
    assert _asked("fish", "tombola run digits --set training.optimizer=s") == ["training.optimizer=sgd"]
    assert "digits-set\tLeNet-300-100 on digits" in _asked("fish", "tombola run digits-se")


def test_results_folders_are_completed(tmp_path: Path) -> None:
    for name in ("results/one", "results/two", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "experiment.toml").touch()
    assert {*_candidates("tombola show ")} == {"elsewhere", "results/one", "results/two"}
    assert _candidates("tombola report results/t") == ["results/two"]
    assert _candidates("tombola compare elsewhere results/o") == ["results/one"]
    assert _candidates("tombola show res") == ["results/"]


def test_names_are_completed() -> None:
    assert _candidates("tombola run digits --engine s") == ["sparse", "stacked"]
    assert _candidates("tombola run digits --device cu") == ["cuda", "cuda:0"]
    assert _candidates("tombola rec") == ["recipes"]
    assert {*completion.ENGINES} == {"auto", *ENGINES}
    assert {*completion.LOGGERS} == {*LOGGERS}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_printed(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, shell))
    result = tombola("--show-completion")
    assert result.exit_code == 0
    assert f"complete_{shell}" in result.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_with_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "tombola"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from tombola.cli import main; main()' \"$@\"\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "bash"))
    script = tombola("--show-completion").stdout.replace("root", "tombola").replace("ROOT", "TOMBOLA")
    commands = f"""
{script}
COMP_WORDS=(tombola run digits --set training.optimizer = s)
COMP_CWORD=6
_tombola_completion tombola
echo "${{COMPREPLY[@]}}"
"""
    ran = subprocess.run(["bash", "-c", commands], capture_output=True, text=True)
    assert ran.stdout.split() == ["sgd"], ran.stderr
