"""Staging: docs/ as the generator reads it, with generated pages, notebooks as pages, and links to the repository."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from tools.site.commands import command_line
from tools.site.notebooks import notebook_page
from tools.site.recipe_keys import recipe_keys

GENERATED: Mapping[str, Callable[[], str]] = {"recipe-keys": recipe_keys, "command-line": command_line}
"""What replaces `<!-- generated: NAME -->` and what follows it, up to `<!-- /generated -->`."""

_MARK = re.compile(r"<!-- generated: ([\w-]+) -->\n.*?<!-- /generated -->", re.S)
_LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")


def stage(docs: Path, staged: Path, repository: str) -> tuple[list[Path], list[str]]:
    """Copy `docs` to `staged`. Returns the paths of the pages there, and what is wrong."""
    shutil.copytree(docs, staged, ignore=shutil.ignore_patterns("*.parquet", "*.ipynb", ".ipynb_checkpoints"))
    problems: list[str] = []

    def linked(text: str, source: Path) -> str:
        text, wrong = link_to_repository(text, source, docs, repository)
        problems.extend(wrong)
        return text

    for page in sorted(staged.rglob("*.md")):
        source = docs / page.relative_to(staged)
        text = _MARK.sub(lambda mark: GENERATED[mark[1]](), page.read_text(encoding="utf-8"))
        page.write_text(linked(text, source), encoding="utf-8")
    for notebook in sorted(docs.rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in notebook.parts:
            page = staged / notebook.relative_to(docs).with_suffix(".md")
            text = notebook_page(notebook, page, functools.partial(linked, source=notebook))
            heading, _, rest = text.partition("\n")
            url = f"{repository}/blob/main/{notebook.relative_to(docs.parent).as_posix()}"
            text = f"{heading}\n\n*This page is a notebook that you can run: [{notebook.name}]({url}).*\n{rest}"
            page.write_text(text, encoding="utf-8")
    return sorted(staged.rglob("*.md")), problems


def link_to_repository(text: str, source: Path, docs: Path, repository: str) -> tuple[str, list[str]]:
    """The text of a page with links to files outside `docs`, and to folders, as links to the repository; links to
    notebooks lead to their pages. Returns it with what is wrong."""
    root, problems = docs.parent, []

    def link(match: re.Match[str]) -> str:
        before, path, after = match.groups()
        target = (source.parent / path).resolve()
        if not target.exists():
            problems.append(f"{source.relative_to(root)}: link to {path}, which does not exist")
            return match[0]
        if target.suffix == ".ipynb":
            return f"{before}{path.removesuffix('.ipynb')}.md{after}"
        if target.is_relative_to(docs) and target.is_file() and target.suffix != ".parquet":
            return match[0]
        kind = "tree" if target.is_dir() else "blob"
        return f"{before}{repository}/{kind}/main/{target.relative_to(root).as_posix()}{after}"

    parts = re.split(r"(^```.*?^```|`[^`\n]+`(?!\]))", text, flags=re.M | re.S)  # code has no links
    return "".join(part if i % 2 else _LINK.sub(link, part) for i, part in enumerate(parts)), problems
