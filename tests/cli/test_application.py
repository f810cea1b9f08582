"""Help of all commands, versions, verbosity, and how options that do not exist are reported."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pytest
import typer

from tests.support.command_line import run, tombola
from tests.support.fake_engine import FakeEngine
from tombola.cli import app


def _commands() -> Iterator[tuple[list[str], Any]]:
    """All commands and groups, with the words that call them."""

    def below(words: list[str], command: Any) -> Iterator[tuple[list[str], Any]]:
        yield words, command
        for name, child in getattr(command, "commands", {}).items():
            yield from below([*words, name], child)

    return below([], typer.main.get_command(app))


COMMANDS = list(_commands())
NAMES = [" ".join(words) or "tombola" for words, _ in COMMANDS]
LEAVES = [words for words, command in COMMANDS if not hasattr(command, "commands")]


def _help(words: list[str]) -> str:
    """The help without spaces and line breaks."""
    result = tombola(*words, "--help")
    assert result.exit_code == 0
    return _plain(result.stdout)


def _plain(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=NAMES)
def test_every_option_that_has_a_default_shows_it(words: list[str], command: Any) -> None:
    shown = _help(words)
    for parameter in command.params:
        if isinstance(parameter.default, str | int | float) and not isinstance(parameter.default, bool):
            assert _plain(f"default: {parameter.default}") in shown
        if isinstance(parameter.show_default, str):
            assert _plain(f"default: ({parameter.show_default})") in shown
        if parameter.envvar:
            assert _plain(f"env var: {parameter.envvar}") in shown


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=NAMES)
def test_no_help_text_loses_a_part(words: list[str], command: Any) -> None:
    shown = _help(words)
    for parameter in command.params:
        assert _plain(parameter.help) in shown
    assert command.help
    assert _plain(command.help.replace("\b", "")) in shown


@pytest.mark.parametrize("words", [words for words, _ in COMMANDS], ids=NAMES)
def test_help_fits_80_columns_but_for_examples(words: list[str]) -> None:
    result = tombola(*words, "-h")
    assert result.exit_code == 0
    long = [line for line in result.stdout.splitlines() if len(line) > 80]
    assert all(line.startswith("    tombola ") and len(line) <= 88 for line in long)


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_all_commands_have_the_common_options(words: list[str]) -> None:
    shown = _help(words)
    for option in ("-q, --quiet", "-v, --verbose", "-h, --help"):
        assert _plain(option) in shown


def test_variables_of_the_environment_are_named() -> None:
    for command in ("run", "sweep"):
        for name in ("TOMBOLA_DATA", "TOMBOLA_STORE"):
            assert f"envvar:{name}" in _help([command])


def test_versions_are_printed() -> None:
    line = tombola("--version").stdout
    for version in (metadata.version("torch"), metadata.version("numba"), platform.python_version()):
        assert version in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--replicates", "3"], "use --set replicates=3"),
        (["--replicates=3"], "use --set replicates=3"),
        (["--training.lr", "0.1"], "use --set training.lr=0.1"),
        (["--lr=0.1"], "use --set training.lr=0.1"),
        (["-lr", "0.1"], "use --set training.lr=0.1"),
        (["--batch-size", "64", "--json"], "use --set training.batch_size=64"),
        (["--levels", "--json"], "use --set search.levels=VALUE"),
        (["--data.mean=[0.1, 0.2]"], "use --set 'data.mean=[0.1, 0.2]'"),
        (["--momentum", "-1"], "use --set training.momentum=-1"),
        (["--epochs", "10ep"], "use --set training.length=10ep"),
        (["--replicate", "3"], "did you mean --set replicates=3?"),
        (["--optimiser", "sgd"], "did you mean --set training.optimizer=sgd?"),
        (["--cheque-point-every", "3"], "did you mean --checkpoint-every?"),
        (["--nothing-like-it"], "no such option: --nothing-like-it (see "),
    ],
)
@pytest.mark.parametrize("command", [["run", "digits"], ["sweep", "digits", "--grid", "seed=1,2"]], ids=" ".join)
def test_a_key_of_recipes_as_an_option_is_explained_in_one_line(
    command: list[str], arguments: list[str], message: str
) -> None:
    result = tombola(*command, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "x", "--lr", "3"], "no such option: --lr"),
        (["show"], "DIR"),
        (["shw", "x"], "shw"),
        (["run", "digits", "extra"], "extra"),
        (["run", "digits", "--workers", "two"], "--workers"),
        (["run", "digits", "--workers", "0"], "--workers"),
        (["run", "digits", "--set"], "--set"),
        (["ticket", "export", "x", "--precision", "fp8"], "fp8"),
    ],
)
def test_what_cannot_be_parsed_is_reported_in_one_line(arguments: list[str], message: str) -> None:
    result = tombola(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert "--help" in line


@pytest.mark.usefixtures("_fake_engine")
def test_quiet_prints_results_and_errors() -> None:
    result = run("--quiet")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "results/tiny" in result.stdout
    refused = run("-q", "--set", "seed=1")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: ")


@pytest.mark.usefixtures("_fake_engine")
def test_verbose_prints_details(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    train = FakeEngine.train

    def logged(*arguments: Any) -> Any:
        logging.getLogger("tombola.engines").debug("a detail")
        return train(*arguments)

    monkeypatch.setattr(FakeEngine, "train", logged)
    run("--out", "other")
    assert "a detail" not in caplog.messages
    run("--verbose")
    assert "a detail" in caplog.messages
    assert "Traceback" in tombola("show", "nowhere", "-v").stderr
