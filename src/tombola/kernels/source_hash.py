"""Hashes of the source code that numba compiles."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

_COMPILERS = ("numba", "llvmlite", "tombola.kernels.compiled")


_parsing = threading.Lock()
"""Held while a text is parsed, and not while a module is imported, which may come back here."""


@functools.cache
def kernel_hash(*modules: str) -> str:
    """8 hexadecimal digits for these modules and all kernel modules of Tombola that they import, directly or not.

    A kernel module is in `tombola.kernels`, or imports numba or `compiled`. Comments, docstrings and formatting
    are not part of the
    hash, so that editing them does not invalidate compiled code, checkpoints and measured speeds.
    """
    found: set[str] = set()
    pending = list(modules)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += [other for other in _imported(name) if other.startswith("tombola.") and _is_kernel(other)]
    hashes = [f"{name} {_module_hash(name)}" for name in sorted(found)]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:8]


def syntax_hash(source: str) -> str:
    """A hash of the syntax tree of a module without docstrings."""
    tree = _RemoveDocstrings().visit(_parse(source))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _parse(source: str) -> ast.Module:
    with _parsing:  # Python 3.11 may fail with a `SystemError` if several threads parse at once
        return ast.parse(source)


class _RemoveDocstrings(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) else node


@functools.cache
def _module_hash(module: str) -> str:
    return syntax_hash(_source(module))


def _source(module: str) -> str:
    return Path(str(importlib.import_module(module).__file__)).read_text(encoding="utf-8")


@functools.cache
def _imported(module: str) -> frozenset[str]:
    """The names of the modules that a module imports."""
    return frozenset(_import_names(_parse(_source(module))))


def _import_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (name for alias in node.names if (name := f"{node.module}.{alias.name}") in sys.modules)


def _is_kernel(module: str) -> bool:
    inside = module.startswith("tombola.kernels.")  # the types of arguments stand there, too
    return inside or any(f"{n}.".startswith(f"{compiler}.") for n in _imported(module) for compiler in _COMPILERS)
