"""The style of figures: colours, safe for colour-blind readers and the same everywhere, and the two themes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

DENSE = "dense"
TUNED = "dense, tuned"
"""The dense network, trained as the tickets are and with the best of the options tried."""

BRANCHES = {
    "ticket": "#1b7fc2",
    DENSE: "#7d7d7d",
    TUNED: "#8c564b",
    "reinit": "#d55e00",
    "reuse": "#009e73",
    "reuse_sign": "#56b4e9",
    "random": "#cc79a7",
    "shuffled": "#e69f00",
    "random_global": "#8c6bb1",
    "large_init": "#a3a332",
    "one_shot": "#b0413e",
}
"""The colours of Okabe & Ito, and four more that differ from them."""

OTHERS = ("#44aa99", "#aa4499", "#b5894c", "#6699cc", "#999933", "#cc6677")

EXPERIMENTS = ("#1b7fc2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7d7d7d")

SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")

DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 1], [1, 3], [10, 4], [3, 6])

DENSE_TO_SPARSE = ("#4b5bb5", "#8a4fb0", "#c94f83", "#e5763f", "#d9a520")
"""A colour ramp from dense to sparse, and from the first layer to the last."""


def ordered(branches: Iterable[str]) -> list[str]:
    """Tickets, the dense network, then controls: known ones in the order above, others by name."""
    known = list(BRANCHES)
    return sorted(set(branches), key=lambda b: (known.index(b) if b in BRANCHES else len(known), b))


def colours(branches: Sequence[str]) -> list[str]:
    """A colour for each branch."""
    others = iter(OTHERS * len(branches))
    return [BRANCHES[branch] if branch in BRANCHES else next(others) for branch in branches]


def cycle(values: Sequence[Any], n: int) -> list[Any]:
    """`n` values, repeated from the start if there are too few."""
    return [values[i % len(values)] for i in range(n)]


def ramp(n: int) -> list[str]:
    """`n` colours from the first of `DENSE_TO_SPARSE` to the last."""
    stops = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in DENSE_TO_SPARSE]
    found = []
    for place in (i * (len(stops) - 1) / max(n - 1, 1) for i in range(n)):
        left = min(int(place), len(stops) - 2)
        mixed = (round(a + (place - left) * (b - a)) for a, b in zip(stops[left], stops[left + 1], strict=True))
        found.append("#" + "".join(f"{part:02x}" for part in mixed))
    return found


FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif'


def theme(dark: bool = False, background: str = "transparent") -> dict[str, Any]:
    """The configuration of all charts."""
    text, quiet, grid = ("#d8dadd", "#a4a8ae", "#33373c") if dark else ("#26282b", "#5c6067", "#e4e5e8")
    words = {"labelColor": text, "titleColor": text, "labelFontSize": 12, "titleFontSize": 12}
    return {
        "background": background,
        "font": FONT,
        "padding": 4,
        "view": {"stroke": None},
        "aria": False,  # the whole figure is described; its numbers are in its table
        "axis": {
            **words,
            "labelColor": quiet,
            "gridColor": grid,
            "domainColor": quiet,
            "tickColor": quiet,
            "labelFontSize": 11.5,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "labelOverlap": True,
        },
        "legend": {
            **words,
            "titleFontWeight": "normal",
            "symbolOpacity": 1,
            "symbolStrokeWidth": 2,
            "symbolLimit": 0,
            "titleLimit": 400,
            "orient": "top",
            "columns": 4,
            "gradientLength": 180,
            "gradientThickness": 10,
        },
        "header": {**words, "labelFontWeight": "normal"},
        "line": {"strokeWidth": 2, "strokeJoin": "round"},
        "point": {"size": 45, "filled": True, "opacity": 1},
    }
