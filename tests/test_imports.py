"""What is imported when: help needs no torch, and public names are imported when they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import tombola

HEAVY = ("torch", "numpy", "scipy", "pyarrow", "altair", "numba", "sklearn")

COMMANDS = [[], ["run"], ["show"], ["report"], ["compare"], ["recipes"], ["speeds"], ["list"], ["sweep"], ["doctor"]]
COMMANDS += [["store", command] for command in ("show", "prune", "copy")]
COMMANDS += [["ticket", command] for command in ("show", "export", "check")]

PROGRAM = """
import sys
from tombola.cli import main
for arguments in {commands}:
    sys.argv = ["tombola", *arguments]
    try:
        main()
    except SystemExit as end:
        assert not end.code
print([name for name in {heavy} if name in sys.modules])
"""


def imported_by(program: str) -> str:
    """The last line that it prints."""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()[-1]


def test_help_and_the_list_of_recipes_need_no_heavy_library() -> None:
    commands = [*([*command, "--help"] for command in COMMANDS), ["recipes"], ["recipes", "--json"]]
    assert imported_by(PROGRAM.format(commands=commands, heavy=HEAVY)) == "[]"


def test_the_version_is_known_without_torch() -> None:
    program = "import sys, tombola; print([tombola.__version__, 'torch' in sys.modules])"
    assert imported_by(program) == str([metadata.version("tombola"), False])


def test_the_package_is_imported_without_what_it_hands_on() -> None:
    program = f"import sys, tombola; print([name for name in {HEAVY} if name in sys.modules])"
    assert imported_by(program) == "[]"


def test_reading_the_digits_does_not_import_scikit_learn() -> None:
    program = "import sys; from tombola.zoo.datasets.digits import load_digits; load_digits(); print('sklearn' in "
    assert imported_by(program + "sys.modules)") == "False"


def test_modules_can_be_used_by_their_full_names() -> None:
    assert imported_by("import tombola; print(tombola.pruning.hold.hold is tombola.hold)") == "True"


def test_type_checkers_see_the_names_that_are_imported_on_use() -> None:
    tree = ast.parse(Path(tombola.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name: f"{node.module}:{alias.name}".removeprefix("tombola.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == tombola._PUBLIC
    assert sorted(seen) == tombola.__all__


def test_all_public_names_are_there_and_listed() -> None:
    for name in tombola.__all__:
        assert getattr(tombola, name) is getattr(tombola, name)
    assert {*tombola.__all__} <= {*dir(tombola)}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tombola.nothing
