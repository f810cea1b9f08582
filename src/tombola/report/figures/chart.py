"""Parts of the Altair charts of all figures."""

from __future__ import annotations

from typing import Any

import altair as alt

DATA = alt.NamedData("rows")
"""The data source of charts. The rows are stored beside the chart, once, for the chart and for the CSV file."""


def tooltip(**formats: str) -> list[Any]:
    """The tooltip of these columns: the format of a number, which may be empty, or `text`."""
    titles = {"weights_left": "weights left (%)", "relative": "of the mean"}
    return [
        alt.Tooltip(f"{name}:N")
        if form == "text"
        else alt.Tooltip(f"{name}:Q", title=titles.get(name, alt.Undefined), format=form or alt.Undefined)
        for name, form in formats.items()
    ]
