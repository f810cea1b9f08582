"""The files of a results folder that depend on nothing but the experiment."""

from __future__ import annotations

from pathlib import Path

OF_THIS_TIME = {"status.json", "report.html", "log.txt"}
"""These say when and by what runs were trained."""


def result_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in OF_THIS_TIME}
