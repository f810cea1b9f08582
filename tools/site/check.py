"""Checks of the built pages: links, anchors, and that nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The ids of a page, the targets of its links, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.ids |= {given[name] for name in ("id", "name") if name in given and tag != "meta"}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "preconnect"):
            self.loaded.append(given.get("href", ""))
        elif "src" in given:
            self.loaded.append(given["src"])


def broken_links(site: Path) -> list[str]:
    """A line for each link to a file or an anchor that does not exist, and for each file that a page would load from
    the network."""
    files = [file for file in sorted(site.rglob("*.html")) if file.name != "404.html"]  # its links are absolute
    pages = {file.resolve(): _Page(file.read_text(encoding="utf-8")) for file in files}
    return [problem for file, page in pages.items() for problem in _problems(file, page, pages, site.resolve())]


def _problems(file: Path, page: _Page, pages: dict[Path, _Page], site: Path) -> Iterator[str]:
    where = file.relative_to(site)
    for target in dict.fromkeys(page.loaded):
        if urlsplit(target).netloc:
            yield f"{where}: loads {target} from the network"
    for target in dict.fromkeys([*page.links, *page.loaded]):
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        to = (file.parent / unquote(parts.path)).resolve() if parts.path else file
        if to.is_dir():
            to /= "index.html"
        if not to.exists():
            yield f"{where}: link to {target}, which does not exist"
        elif parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].ids:
            yield f"{where}: link to {target}, where there is no such anchor"
