"""Ages of files: how long ago something was written, as users give them and read them."""

from __future__ import annotations

import re

from tombola.utils.errors import InputError

SECONDS = {"min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
"""By unit."""


def parse_age(option: str, text: str) -> float:
    """An age such as `30d` in seconds. Raises `InputError`, which names the option, for other text.

    >>> parse_age("--older-than", "1.5h")
    5400.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(\w+)", text.strip())
    if found is None or found[2] not in SECONDS:
        raise InputError(f"{option}: should be a number and one of {', '.join(SECONDS)}, such as 30d, not {text!r}")
    return float(found[1]) * SECONDS[found[2]]


def age_text(seconds: float) -> str:
    """An age in its largest unit.

    >>> age_text(200000), age_text(30)
    ('2 d', '0 min')
    """
    unit = next((unit for unit in ("d", "h") if seconds >= SECONDS[unit]), "min")
    return f"{int(max(0, seconds) // SECONDS[unit])} {unit}"
