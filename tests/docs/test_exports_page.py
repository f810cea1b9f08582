"""What docs/exports.md says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "exports.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
WRITING = [block for block in BLOCKS if "write_" in block]
READING = [block for block in BLOCKS if "write_" not in block]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page has written its files."""
    made = tmp_path_factory.mktemp("exports")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        exec("".join(WRITING), {})
    return made


def test_the_files_are_those_of_the_page(folder: Path) -> None:
    assert sorted(file.name for file in folder.iterdir()) == ["net.npz", "net.onnx", "net.pt2", "net.safetensors"]


@pytest.mark.parametrize("code", READING, ids=["onnx", "exported", "csr", "two-four"])
def test_each_is_read_in_a_fresh_process(folder: Path, code: str) -> None:
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
