"""The commit that is checked out in a folder, if it is below version control by git."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

PATIENCE = 5.0
"""Seconds after which git is not waited for any longer; the commit is unknown then."""

DIRTY = "-dirty"
"""Follows the commit of a checkout of which tracked files have been changed since."""

_DESCRIBE = ("describe", "--always", f"--dirty={DIRTY}", "--abbrev=12", "--exclude=*")


def commit_of(folder: Path) -> str | None:
    """The first 12 digits of the commit, followed by `DIRTY` if tracked files have been changed since; None without a
    commit or without git."""
    return _git(folder, *_DESCRIBE)


@functools.cache
def own_commit() -> str | None:
    """The commit of the tombola that runs, if it is a checkout; see `commit_of`. It cannot change while tombola is
    imported."""
    package = Path(__file__).parents[1]
    # An installed package may lie in an environment within somebody's checkout, which does not track it.
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py")
    return commit_of(package) if tracked else None


def _git(folder: Path, *command: str) -> str | None:
    """What git prints in `folder`; None if it fails. It writes nothing there, and runs no program of the checkout."""
    safe = ("--no-optional-locks", "-c", "core.fsmonitor=false")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        ended = subprocess.run(
            ("git", *safe, *command),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return ended.stdout.strip() or None if ended.returncode == 0 else None
