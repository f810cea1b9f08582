"""Where data is looked for."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def folders(data_dir: Path | None) -> list[Path]:
    """`data_dir`, `TOMBOLA_DATA` and the user's cache, in this order; the last is where downloads go."""
    environment = os.environ.get("TOMBOLA_DATA")
    return [
        *([data_dir] if data_dir else []),
        *([Path(environment)] if environment else []),
        Path(platformdirs.user_cache_dir("tombola")),
    ]
