"""Public names: whether each is on a page of the reference and has a docstring."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import griffe

_DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.M)


def undocumented(pages: Sequence[Path], search_paths: Sequence[Path], package: str = "tombola") -> list[str]:
    """A line for each name of the package's `__all__` that no page documents, and for each documented object, or
    public member of one, without a docstring."""
    named = [name for page in pages for name in _DIRECTIVE.findall(page.read_text(encoding="utf-8"))]
    loaded = griffe.load(package, search_paths=search_paths)
    loader = griffe.GriffeLoader(search_paths=search_paths)
    loader.modules_collection[package] = loaded
    loader.resolve_aliases(implicit=True)
    missing = sorted({f"{package}.{name}" for name in loaded.exports or ()} - {*named})
    problems = [f"{name} is public, but on no page of the reference" for name in missing]
    for name in named:
        try:
            found = loaded[name.removeprefix(f"{package}.")]
        except KeyError:
            problems.append(f"{name} is on a page of the reference, but does not exist")
            continue
        problems += [f"{path} has no docstring" for path in _without_docstring(found, name)]
    return problems


def _without_docstring(thing: griffe.Object | griffe.Alias, path: str) -> Iterator[str]:
    target = thing.final_target if isinstance(thing, griffe.Alias) else thing
    if not target.docstring:
        yield path
    if target.is_module or target.is_class:
        for name, member in target.members.items():
            if not name.startswith("_") and not member.is_alias and not member.is_module:
                yield from _without_docstring(member, f"{path}.{name}")
