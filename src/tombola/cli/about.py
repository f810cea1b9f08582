"""What `tombola --help` says first, and `tombola --version`, which imports none of the packages that it names."""

from __future__ import annotations

import platform
from typing import Annotated

import typer

from tombola.utils.libraries import installed_version

ABOUT = """Find winning lottery tickets, verify them, and export them.

A winning ticket is a sparse subnetwork that, trained from its original initial weights, is as accurate as the dense
network.

\b
Examples:
  tombola run digits                    search for tickets; about a minute
  tombola show results/digits           the results again
  tombola recipes                       other experiments
  tombola ticket export results/digits/ticket.safetensors
"""


def version_line() -> str:
    """The versions of tombola, torch, numba and Python."""
    return f"tombola {_version('tombola')} (torch {_version('torch')}, numba {_version('numba')}, {_python()})"


def _python() -> str:
    return f"Python {platform.python_version()}"


def _version(package: str) -> str:
    return installed_version(package) or "not installed"


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(version_line())
        raise typer.Exit


def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print versions and exit.")
    ] = False,
) -> None:
    """The options of `tombola` itself."""
