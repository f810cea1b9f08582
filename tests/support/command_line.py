"""Runs the command line, in the current folder, which has the recipe `tiny.toml`."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from tombola.cli import app

WINNING = ["replicates=5", "verdict.margin=0.99", "verdict.max_density=0.99", "controls.reinit=0"]
"""Settings with which every ticket of a `FakeEngine` wins."""


def tombola(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def run(*arguments: str) -> Result:
    return tombola("run", "tiny.toml", "--workers", "1", "--no-report", *arguments)


def with_settings(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]
