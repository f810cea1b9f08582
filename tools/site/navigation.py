"""The navigation, as mkdocs.yml lists it: which pages it leads to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

TUTORIALS = "tutorials"


def with_tutorials(nav: Sequence[Any], docs: Path) -> list[Any]:
    """The navigation with the notebooks that there are: first those that it lists, in that order, then all others."""
    there = [page.relative_to(docs).as_posix() for page in sorted((docs / TUTORIALS).glob("*.md"))]

    def completed(entry: Any) -> Any:
        if not isinstance(entry, dict) or TUTORIALS.capitalize() not in entry:
            return entry
        listed = [name for name in entry[TUTORIALS.capitalize()] if name in there]
        return {TUTORIALS.capitalize(): [*listed, *(name for name in there if name not in listed)]}

    return [completed(entry) for entry in nav]


def missing_from_navigation(nav: Sequence[Any], pages: Iterable[Path], docs: Path) -> list[str]:
    """A line for each page of `docs` that the navigation does not lead to, and for each entry without a page."""
    listed = {entry for entry in _listed(nav) if not entry.startswith("https://")}
    named = {page.relative_to(docs).as_posix() for page in pages}
    return [
        *(f"{name}: is not in the navigation of mkdocs.yml" for name in sorted(named - listed)),
        *(f"mkdocs.yml: the navigation leads to {name}, which does not exist" for name in sorted(listed - named)),
    ]


def _listed(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from _listed(entry)
