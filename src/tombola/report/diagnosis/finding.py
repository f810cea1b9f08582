"""What `tombola doctor` finds: one line for each thing that was examined."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tombola.utils.text import one_line

State = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """The state of one thing."""

    section: str
    name: str
    text: str
    """What was found, in one line."""
    state: State = "ok"
    advice: str = ""
    """What to do about it; empty if nothing."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine(section: str, name: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What `look` finds; a warning with the reason if it fails. Paths in the home folder begin with `~`."""
    try:
        found = [*look()]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever is broken, the other lines are shown
        reason = f"{type(error).__name__}: {one_line(RuntimeError(str(error)))}"
        found = [Finding(section, name, f"could not be examined: {reason}", "warning")]
    return [replace(each, text=without_home(each.text), advice=without_home(each.advice)) for each in found]


def without_home(text: str) -> str:
    """`text` with `~` for the user's home folder, whose name may be private."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text
