"""The build: staged pages -> the generator -> checks of the pages that it wrote."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tools.site.api_pages import undocumented
from tools.site.check import broken_links
from tools.site.navigation import missing_from_navigation, with_tutorials
from tools.site.offline import make_offline
from tools.site.staging import stage

_GITHUB_ANCHORS = "!!python/object/apply:pymdownx.slugs.slugify {kwds: {case: lower}}"
"""Anchors of headings are those of GitHub, so that links work on both."""


def build(root: Path, out: Path, staged: Path | None = None) -> list[str]:
    """Build the site of the project in `root` into `out`; `staged` has its pages (default: build/site in `root`).
    Both folders are replaced. Returns what is wrong, a line for each problem: broken links and anchors, pages missing
    from the navigation, undocumented public names."""
    config: dict[str, Any] = yaml.safe_load((root / "mkdocs.yml").read_text(encoding="utf-8"))
    staged = staged or root / "build" / "site"
    shutil.rmtree(staged, ignore_errors=True)
    pages, problems = stage(root / "docs", staged / "docs", config["extra"]["repository"])
    config["nav"] = with_tutorials(config["nav"], staged / "docs")
    problems += missing_from_navigation(config["nav"], pages, staged / "docs")
    problems += undocumented(pages, [root / "src"])
    problems += _generate(config, root, staged, out)
    if (out / "index.html").exists():
        make_offline(out)
        problems += broken_links(out)
    return problems


def _generate(config: dict[str, Any], root: Path, staged: Path, out: Path) -> list[str]:
    """Run the generator on the staged pages. Its own strict mode stops at the first kind of problem, and knows no
    images or files; `broken_links` reads what it wrote instead."""
    shutil.rmtree(out, ignore_errors=True)
    paths = {"docs_dir": "docs", "site_dir": "site"}
    file = staged / "mkdocs.yml"
    text = yaml.safe_dump(config | paths, sort_keys=False, allow_unicode=True)
    for name, value in (("ROOT", root.as_posix()), ("GITHUB_ANCHORS", _GITHUB_ANCHORS)):
        text = text.replace(name, value)
    file.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=staged)
    if (staged / "site").exists():
        shutil.move(staged / "site", out)
    said = re.sub(r"\x1b\[[0-9;]*m", "", ran.stderr or ran.stdout).partition("Traceback")[0].strip()
    return [] if ran.returncode == 0 else [f"zensical: {said or ran.stderr}"]
