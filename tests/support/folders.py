"""Folders that cannot be read, also by an administrator."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest


def refuse(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody see what is in `folder`."""
    scan, hidden = os.scandir, folder.resolve()

    def scandir(path: Any = ".") -> Any:
        if isinstance(path, str | Path) and Path(path).resolve() == hidden:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
