"""The style of figures: colours, shapes and dashes, the same everywhere and safe for colour-blind readers; and the
two themes."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

DENSE = "dense"
TUNED = "dense, tuned"
"""The dense network, trained as the tickets are and with the best of the options tried."""


@dataclass(frozen=True)
class BranchStyle:
    """How a branch is drawn in all figures. The shape and the dash tell it apart without colours."""

    colour: str
    shape: str
    dash: tuple[int, ...] = (1, 0)
    """The lengths of strokes and gaps, in pixels."""


STAR = "M0,-1.1L.28,-.34L1.05,-.34L.45,.13L.65,.9L0,.45L-.65,.9L-.45,.13L-1.05,-.34L-.28,-.34Z"

BRANCHES = {
    "ticket": BranchStyle("#1b7fc2", "circle"),
    DENSE: BranchStyle("#6b6b6b", "square"),
    TUNED: BranchStyle("#8c564b", "square", (12, 3)),
    "reinit": BranchStyle("#d55e00", "triangle-up", (6, 3)),
    "permuted": BranchStyle("#762a83", "diamond", (7, 2, 2, 2)),
    "unpermuted": BranchStyle("#c994c7", "triangle-up", (3, 2)),
    "reuse": BranchStyle("#009e73", "diamond", (2, 2)),
    "reuse_sign": BranchStyle("#56b4e9", "triangle-down", (8, 3, 2, 3)),
    "signs": BranchStyle("#0f8b8d", "triangle-down", (3, 2, 9, 2)),
    "magnitudes": BranchStyle("#7a9a01", "cross", (7, 5)),
    "trained_signs": BranchStyle("#4b4fa8", STAR, (4, 4, 1, 4)),
    "sign_in": BranchStyle("#e0559a", "square", (3, 3, 6, 3)),
    "random": BranchStyle("#cc79a7", "cross", (4, 2)),
    "shuffled": BranchStyle("#e69f00", "triangle-right", (1, 3)),
    "random_global": BranchStyle("#8c6bb1", "triangle-left", (10, 4)),
    "large_init": BranchStyle("#a3a332", "diamond", (3, 5)),
    "one_shot": BranchStyle("#b0413e", STAR, (5, 2, 1, 2)),
    "rewound": BranchStyle("#117733", "triangle-down", (2, 4)),
    "average": BranchStyle("#4d4d99", "square", (2, 3)),
    "pool": BranchStyle("#a05195", "diamond", (5, 2, 2, 2)),
    "drawn": BranchStyle("#44aa99", "cross", (6, 2, 1, 2)),
    "supermask": BranchStyle("#aa4499", "triangle-up", (2, 3)),
    "untrained": BranchStyle("#b5894c", "triangle-left", (4, 4)),
    "transfer": BranchStyle("#332288", "diamond", (9, 2)),
    "transfer_random": BranchStyle("#cc6677", "triangle-right", (1, 2)),
}
"""The colours of Okabe & Ito, and others that differ from them."""

OTHER_COLOURS = ("#6699cc", "#999933", "#882255", "#661100", "#4f7f7f", "#7f6f9f")
"""Of branches without a style of their own, which are chosen by their names: so they keep them in all figures."""

EXPERIMENTS = ("#1b7fc2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7d7d7d")

SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")

DASHES = ((6, 3), (2, 2), (8, 3, 2, 3), (4, 1), (1, 3), (10, 4), (3, 6))

LINES = ("#332288", "#b5894c")
"""Two colours that are not of branches."""

DENSE_TO_SPARSE = ("#4b5bb5", "#8a4fb0", "#c94f83", "#e5763f", "#d9a520")
"""A colour ramp from dense to sparse, and from the first layer to the last."""

VERDICTS = {
    "winning": "M-1,0A1,1,0,1,1,1,0A1,1,0,1,1,-1,0Z",
    "cannot tell": "M-1,0A1,1,0,1,1,1,0A1,1,0,1,1,-1,0ZM-.66,0A.66,.66,0,1,0,.66,0A.66,.66,0,1,0,-.66,0Z",
    "not winning": "M-1,-.6L-.6,-1L0,-.4L.6,-1L1,-.6L.4,0L1,.6L.6,1L0,.4L-.6,1L-1,.6L-.4,0Z",
    "too many weights": "M-.6,0A.6,.6,0,1,1,.6,0A.6,.6,0,1,1,-.6,0Z",
}
"""The shapes of tickets: filled where the verdict is winning, hollow where it cannot tell, a cross where the ticket
does not win, and a small dot where it is not asked whether it does."""


def style_of(branch: str) -> BranchStyle:
    """The style of a branch, which depends on nothing but its name."""
    if branch in BRANCHES:
        return BRANCHES[branch]
    number = zlib.crc32(branch.encode())
    colour = OTHER_COLOURS[number % len(OTHER_COLOURS)]
    return BranchStyle(colour, SHAPES[number // 7 % len(SHAPES)], DASHES[number // 61 % len(DASHES)])


def ordered(branches: Iterable[str]) -> list[str]:
    """Tickets, the dense network, then controls: known ones in the order above, others by name."""
    known = list(BRANCHES)
    return sorted(set(branches), key=lambda b: (known.index(b) if b in BRANCHES else len(known), b))


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


PAPER, WORDS = "paper", "words"
"""The styles of marks that have the colour of the paper, and of texts."""

PAPERS = ("#ffffff", "#15171a")
"""The colours of the paper, light and dark."""

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif'


def theme(dark: bool = False, background: str = "transparent", columns: int = 4) -> dict[str, Any]:
    """The configuration of all charts, whose legends have so many columns."""
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
            "columns": columns,
            "rowPadding": 4,
            "labelLimit": 260,
            "gradientLength": 180,
            "gradientThickness": 10,
        },
        "header": {**words, "labelFontWeight": "normal"},
        "title": {
            "color": text,
            "fontSize": 12.5,
            "fontWeight": 600,
            "anchor": "start",
            "frame": "group",
            "offset": 8,
        },
        "line": {"strokeWidth": 2, "strokeJoin": "round"},
        "point": {"size": 45, "filled": True, "opacity": 1},
        "style": {PAPER: {"color": PAPERS[dark]}, WORDS: {"color": text}},
    }
