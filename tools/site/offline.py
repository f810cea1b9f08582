"""What the site needs to be read from a disk, without a server: search works from `file://` too."""

from __future__ import annotations

from pathlib import Path


def make_offline(site: Path) -> None:
    """Write the search index as a script, too: from a disk, browsers let a page load scripts, but read no files."""
    index = (site / "search.json").read_text(encoding="utf-8")
    (site / "search.js").write_text(f"var __index = {index};\n", encoding="utf-8")
