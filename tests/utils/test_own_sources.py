"""The user's own modules on a machine that does not have them."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tombola.utils import own_sources
from tombola.utils.own_sources import pack_own_sources

IMPORT = """
import sys
from pathlib import Path
from tombola.utils.own_sources import import_from
for _ in range(2):
    import_from(Path(sys.argv[1]).read_bytes())
import own_plain, own_space.part, own_whole.later
print(own_plain.name(), own_space.part.name(), own_whole.later.name())
print(*sorted(path.name for path in Path(own_whole.__file__).parent.glob("*.*")))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module, a part of a namespace package, and a package with a module that is imported later."""
    folder = tmp_path / "project"
    for name in ("own_plain.py", "own_space/part.py", "own_whole/__init__.py", "own_whole/later.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"def name():\n    return {name!r}\n")
    (folder / "own_whole" / "later.py").write_text(
        "from pathlib import Path\ndef name():\n    return (Path(__file__).parent / 'words.txt').read_text()\n"
    )
    (folder / "own_whole" / "words.txt").write_text("beside it")
    (folder / "own_whole" / "data.bin").write_bytes(bytes(own_sources.MAX_FILE + 1))
    (folder / "own_whole" / ".hidden").write_text("secret")
    monkeypatch.syspath_prepend(folder)
    for name in [name for name in sys.modules if name.startswith("own_")]:  # of an earlier test
        monkeypatch.delitem(sys.modules, name)
    for name in ("own_plain", "own_space.part", "own_whole"):
        importlib.import_module(name)
    monkeypatch.setattr(own_sources, "own_modules", lambda: [sys.modules[name] for name in OWN])
    return folder


OWN = ["own_plain", "own_space.part", "own_whole"]


def test_they_are_imported_elsewhere(project: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.zip"
    packed.write_bytes(pack_own_sources())
    project.rename(tmp_path / "gone")
    given = [sys.executable, "-c", IMPORT, str(packed)]
    printed = subprocess.run(given, check=True, capture_output=True, text=True, env=environment(tmp_path)).stdout
    assert printed.splitlines() == ["own_plain.py own_space/part.py beside it", "__init__.py later.py words.txt"]
    assert not list((tmp_path / "temporary").iterdir())


def environment(folder: Path) -> dict[str, str]:
    (folder / "temporary").mkdir()
    return os.environ | {"TMPDIR": str(folder / "temporary"), "PYTHONDONTWRITEBYTECODE": "1"}


def test_equal_sources_give_equal_bytes(project: Path) -> None:
    before = pack_own_sources()
    (project / "own_plain.py").touch()
    assert pack_own_sources() == before
    (project / "own_plain.py").write_text("def name():\n    return 'changed'\n")
    assert pack_own_sources() != before
