"""The layers of docs/architecture.md: imports run one way, files are short, and the public face is small."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import tombola

PACKAGE = Path(tombola.__file__).parent

ORDER = [
    "entry points",
    "report",
    "integrations",
    "exports",
    "tickets",
    "stats",
    "experiments",
    "studies",
    "engines",
    "kernels",
    "runs",
    "zoo",
    "pruning",
    "graph",
    "utils",
]
"""From top to bottom: a package may import from itself and from those below it."""

ENTRY_POINTS = {
    "__init__",
    "__main__",
    "_compare_methods",
    "_find_ticket",
    "_perform",
    "_plan_experiment",
    "_run_experiment",
    "_sweep",
    "_trainers",
    "cli",
}
"""The top level of the package."""


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts), path


def layer(module: str) -> str:
    first = module.split(".")[0]
    return "entry points" if first in ENTRY_POINTS else first


def imports(path: Path) -> Iterator[str]:
    """The modules of tombola that a file imports, those in functions and for type checkers included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: imports are absolute"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tombola":
            base = node.module.removeprefix("tombola").removeprefix(".")
            yield from (f"{base}.{alias.name}".removeprefix(".") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("tombola.") for a in node.names if a.name.startswith("tombola."))


def test_every_file_stands_in_a_layer() -> None:
    assert {layer(name) for name, _ in modules()} == set(ORDER)


def test_imports_run_one_way() -> None:
    above = {
        f"{name} imports {imported}"
        for name, path in modules()
        for imported in imports(path)
        if ORDER.index(layer(imported)) < ORDER.index(layer(name))
    }
    assert not above


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = {name.removesuffix(".__init__") for name, _ in modules()}

    def module_of(imported: str) -> str | None:
        return next((m for m in (imported, imported.rpartition(".")[0]) if m in known), None)

    graph = {
        name.removesuffix(".__init__"): {module_of(i) for i in imports(path)} - {None, name.removesuffix(".__init__")}
        for name, path in modules()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_no_file_is_long() -> None:
    tests = Path(__file__).parent.rglob("*.py")
    assert not [path for path in (*PACKAGE.rglob("*.py"), *tests) if len(path.read_text().splitlines()) > 400]


def test_the_public_face_is_small() -> None:
    assert len(tombola.__all__) <= 26
