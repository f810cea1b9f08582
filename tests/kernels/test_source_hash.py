"""The hashes of the kernels' source."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

from tombola.engines.sparse import speeds
from tombola.kernels import compiled, products, source_hash, vectors
from tombola.kernels import inference as runtime_kernels
from tombola.kernels.source_hash import kernel_hash, syntax_hash
from tombola.kernels.training import layer, loop


def test_a_process_that_has_imported_nothing_can_hash() -> None:
    """Importing a kernel module hashes it, within a hash that imports it."""
    code = "from tombola.engines.sparse.speeds import versions; print(versions())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "kernels " in found.stdout


SOURCE = '''"""A kernel."""
FACTOR = 2
"""A constant."""


def f(x):
    """Twice."""
    return FACTOR * x  # a comment
'''


@pytest.mark.parametrize(("old", "new"), [("Twice", "Double"), ("# a comment", ""), ("\n\n\n", "\n")])
def test_docstrings_comments_and_formatting_do_not_change_the_hash(old: str, new: str) -> None:
    assert SOURCE.replace(old, new) != SOURCE
    assert syntax_hash(SOURCE.replace(old, new)) == syntax_hash(SOURCE)


@pytest.mark.parametrize(("old", "new"), [("= 2", "= 3"), ("*", "+"), ("f(x)", "f(x, y)")])
def test_code_changes_the_hash(old: str, new: str) -> None:
    assert syntax_hash(SOURCE.replace(old, new)) != syntax_hash(SOURCE)


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        (vectors, []),
        (compiled, []),
        (products, []),
        (loop, [products, layer, runtime_kernels]),
        (runtime_kernels, [products, layer, loop]),
        (speeds, [products, layer, loop, runtime_kernels]),
    ],
)
def test_a_module_changes_the_hashes_of_the_kernel_modules_that_import_it(
    changed: ModuleType, same: list[ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = [products, layer, loop, runtime_kernels]
    before = [kernel_hash.__wrapped__(module.__name__) for module in modules]
    assert len(set(before)) == len(modules)
    module_hash = source_hash._module_hash
    monkeypatch.setattr(
        source_hash, "_module_hash", lambda name: "changed" if name == changed.__name__ else module_hash(name)
    )
    after = [kernel_hash.__wrapped__(module.__name__) for module in modules]
    assert [module for module, a, b in zip(modules, before, after, strict=True) if a == b] == same


def test_the_engine_and_the_runtime_cache_compiled_code_in_folders_of_their_own() -> None:
    folders = {
        loop.train._cache.cache_path,
        layer.layer_forward._cache.cache_path,
        runtime_kernels.run._cache.cache_path,
    }
    assert len(folders) == 3
    assert kernel_hash(runtime_kernels.__name__) in runtime_kernels.run._cache.cache_path
