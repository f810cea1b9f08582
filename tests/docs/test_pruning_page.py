"""What docs/pruning.md says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tombola.pruning.hold import release
from tombola.pruning.scopes import SCOPES
from tombola.pruning.scores import SCORES
from tombola.pruning.structures import STRUCTURES

PAGE = (Path(__file__).parents[2] / "docs" / "pruning.md").read_text(encoding="utf-8")
NAMES = set(re.findall(r"^\| `([^`]+)` \|", PAGE, re.M))


def test_every_score_scope_and_structure_is_on_the_page() -> None:
    assert {*SCORES, *SCOPES, *STRUCTURES, "2:4", "blocks:4x4"} == NAMES


def test_what_the_page_runs_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    assert len(blocks) == 6
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
        if "hold" in names:
            release(names["network"])  # later examples prune it in other ways
