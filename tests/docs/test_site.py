"""The documentation site: it builds without problems, has every key and option, and finds what is wrong."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.chromium import CHROMIUM

pytest.importorskip("zensical", reason="the extra docs is not installed")
pytest.importorskip("mkdocstrings", reason="the extra docs is not installed")
pytest.importorskip("nbformat", reason="the extra docs is not installed")

import nbformat
import yaml
from tools.site.build import build
from tools.site.commands import commands, parameters
from tools.site.recipe_keys import keys

import tombola

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    assert build(ROOT, folder / "out", folder / "staged") == []
    return folder / "out"


def section(site: Path, page: str, heading: str) -> str:
    """The text of a page from a heading of the second level to the next, without tags."""
    text = (site / page).read_text(encoding="utf-8")
    parts = {plain(part.partition("</h2>")[0]).rstrip("¶ "): part for part in re.split(r"<h2\b[^>]*>", text)}
    return plain(parts[heading])


def plain(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", text)).strip()


def test_every_key_of_a_recipe_is_on_its_page_with_its_meaning(site: Path) -> None:
    page = (site / "reference/recipe.html").read_text(encoding="utf-8")
    rows = {plain(cells[0]): cells for row in re.findall(r"<tr>(.*?)</tr>", page, re.S) if (cells := cells_of(row))}
    found = [*keys()]
    assert len(found) > 50
    for name, key in found:
        if name:
            assert re.search(rf"\b{key}\b", section(site, "reference/recipe.html", f"[{name}]"))
        assert all(plain(rows[key][column]) for column in (1, 3)), key


def cells_of(row: str) -> list[str]:
    return re.findall(r"<td\b[^>]*>(.*?)</td>", row, re.S)


def test_every_option_of_every_command_is_on_its_page(site: Path) -> None:
    found = [*commands()]
    assert ("tombola", "ticket", "check") in [path for path, _ in found]
    for path, command in found:
        text = section(site, "reference/command-line.html", " ".join(path))
        for parameter in parameters(command):
            is_option = parameter.param_type_name == "option"
            named = (
                (*parameter.opts, *parameter.secondary_opts) if is_option else (parameter.metavar or parameter.name,)
            )
            for name in named:
                assert name in text, (path, name)


def test_every_public_name_has_an_anchor(site: Path) -> None:
    page = (site / "reference/python.html").read_text(encoding="utf-8")
    assert [name for name in tombola.__all__ if f'id="tombola.{name}"' not in page] == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the site with")
def test_nothing_is_asked_of_the_network_and_search_works_from_a_disk(site: Path, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("Control+k")
    page.get_by_placeholder("Search").fill("choose a margin")
    page.locator("li a", has_text="Choose a margin").filter(has_text="How to").first.wait_for()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))] == []
    page.close()


# What is wrong is found

MISTAKES = """# Page

[a](missing.md), [b](other.md#missing), ![c](missing.png), [d](../src/missing.py), [e](../src/tombola/__init__.py)

<script src="https://example.com/script.js"></script>

::: tombola.planted
"""

PACKAGE = '''"""A package."""

__all__ = ["elsewhere", "planted"]


def planted() -> None: ...


def elsewhere() -> None:
    """Is on no page."""
'''


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is found in a project with one mistake of each kind."""
    root = tmp_path_factory.mktemp("project")
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    (root / "docs/tutorials").mkdir(parents=True)
    nav = ["index.md", "other.md", "nowhere.md", {"Tutorials": ["tutorials/absent.md"]}]
    (root / "mkdocs.yml").write_text(yaml.safe_dump(config | {"nav": nav}), encoding="utf-8")
    (root / "docs/index.md").write_text(MISTAKES, encoding="utf-8")
    (root / "docs/other.md").write_text("# Other\n\n`[code](missing.md)` is no link.\n", encoding="utf-8")
    (root / "docs/orphan.md").write_text("# Orphan\n", encoding="utf-8")
    shutil.copytree(ROOT / "docs/assets", root / "docs/assets")
    (root / "src/tombola").mkdir(parents=True)
    (root / "src/tombola/__init__.py").write_text(PACKAGE, encoding="utf-8")
    cell = nbformat.v4.new_code_cell("1 + 1")
    cell.outputs = [nbformat.v4.new_output("stream", text="two\n")]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Sums"), cell])
    nbformat.write(notebook, root / "docs/tutorials/sums.ipynb")
    found = build(root, root / "site")
    page = plain((root / "site/tutorials/sums.html").read_text(encoding="utf-8"))
    assert "1 + 1" in page
    assert "two" in page
    return "\n".join(problem for problem in found if not problem.startswith("zensical: "))


@pytest.mark.parametrize(
    "mistake",
    [
        "docs/index.md: link to missing.md",
        "docs/index.md: link to missing.png",
        "docs/index.md: link to ../src/missing.py",
        "index.html: link to other.html#missing",
        "index.html: loads https://example.com/script.js",
        "orphan.md: is not in the navigation",
        "the navigation leads to nowhere.md",
        "tombola.planted has no docstring",
        "tombola.elsewhere is public",
    ],
)
def test_a_mistake_is_found(mistake: str, problems: str) -> None:
    assert mistake in problems


def test_what_is_right_is_not_reported(problems: str) -> None:
    for right in (
        "__init__.py",
        "sums.ipynb",
        "absent",
        "other.html: link to missing",
        "tombola.elsewhere has no docstring",
    ):
        assert right not in problems
