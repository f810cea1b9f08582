"""Each branch has one colour, shape and dash, in whichever figure and beside whatever others it stands."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.report_data import layer_row, report_data, report_row
from tombola.report.comparison_page import comparison
from tombola.report.document import Document
from tombola.report.figures.style import BRANCHES, DENSE, TUNED, ordered, style_of
from tombola.report.page_sections import document
from tombola.report.report_data import ReportData
from tombola.studies.controls import CONTROLS
from tombola.studies.request import UNCOMPARED


def data_with(branches: list[str]) -> ReportData:
    rows = [report_row(r, level) for r in (0, 1) for level in (0, 1)]
    return report_data([*rows, *(report_row(r, 1, b) for r in (0, 1) for b in branches)], [layer_row(0, 1)])


def looks(page: Document) -> dict[tuple[str, str], set[Any]]:
    """By channel and series, all values that it has in the charts."""
    found: dict[tuple[str, str], set[Any]] = defaultdict(set)

    def walk(part: Any) -> None:
        if isinstance(part, list):
            for each in part:
                walk(each)
        elif isinstance(part, dict):
            for channel in ("color", "shape", "strokeDash"):
                encoded = part.get(channel)
                if isinstance(encoded, dict) and encoded.get("field") in ("series", "branch"):
                    scale = encoded["scale"]
                    for name, value in zip(scale["domain"], scale["range"], strict=True):
                        found[channel, name].add(str(value))
            for each in part.values():
                walk(each)

    for figure in page.figures:
        walk(dict(figure.chart))
    return found


@settings(max_examples=12, deadline=None)
@given(st.sets(st.sampled_from([*CONTROLS, "another", "<b>"])))
def test_branches_look_the_same_in_all_figures(controls: set[str]) -> None:
    data = data_with(sorted(controls))
    found = looks(document(data))
    assert {len(values) for values in found.values()} == {1}
    for name in (*controls, DENSE, "ticket"):
        style = style_of(name)
        assert found["color", name] == {style.colour}
        assert found["shape", name] == {style.shape}
        assert found["strokeDash", name] == {str(list(style.dash))}
    compared = looks(comparison([data, data_with(["reinit"])]))
    for name in controls:
        assert compared["shape", name] == found["shape", name]
        assert compared["strokeDash", name] == found["strokeDash", name]


def test_every_branch_that_there_is_has_a_style_of_its_own() -> None:
    assert {*CONTROLS, *UNCOMPARED, "ticket", DENSE, TUNED} <= {*BRANCHES, "baseline"}
    assert len({style.colour for style in BRANCHES.values()}) == len(BRANCHES)
    for one, other in combinations(BRANCHES.values(), 2):
        assert (one.shape, one.dash) != (other.shape, other.dash)  # without colours
    for one, other in combinations([BRANCHES[name] for name in (*CONTROLS, "ticket", DENSE)], 2):
        assert one.dash != other.dash or one.shape != other.shape
    assert all(0.15 < luminance(style.colour) < 0.8 or style.colour == "#332288" for style in BRANCHES.values())


def luminance(colour: str) -> float:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_branches_have_an_order() -> None:
    assert ordered(["zebra", "reinit", "dense", "ticket", "ant"]) == ["ticket", "dense", "reinit", "ant", "zebra"]
