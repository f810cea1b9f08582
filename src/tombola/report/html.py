"""A document as one HTML file without external resources."""

from __future__ import annotations

import base64
import json
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from tombola.report.document import Document, Table, Text
from tombola.report.figures.figure import HOVER, Figure, MissingFigure
from tombola.report.figures.style import theme
from tombola.report.vega import svg, vega_embed

HALF, FULL = 520, 1040
"""The width of static pictures, in pixels."""


PRINTED = "@media print { .drawn > .live { display: block; } }"
"""The style of a page without static pictures."""


def render(document: Document, pictures: bool = True) -> str:
    """The document as HTML. Static `pictures`, for print and where scripts do not run, take long to draw."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters["static"] = _data_uri
    environment.filters["payload"] = _payload
    return environment.get_template("page.html.j2").render(
        document=document,
        **{kind.__name__: kind for kind in (Figure, MissingFigure, Table, Text)},
        pictures=pictures,
        style=Markup(_asset("page.css") + ("" if pictures else PRINTED)),
        script=Markup(_asset("page.js")),
        library=_library() if document.figures else Markup(""),
        themes={"light": theme(), "dark": theme(dark=True)},
    )


def static_svg(figure: Figure) -> str:
    """A figure as a static SVG picture on white."""
    chart = json.loads(json.dumps(figure.chart))
    if figure.cell:
        chart["columns"] = max(1, (FULL - 60) // (figure.cell + 30))
    else:
        chart |= {"width": HALF - 80, "autosize": {"type": "pad"}}
    if "layer" in chart:
        chart["layer"] = [layer for layer in chart["layer"] if layer.get("name") != HOVER]
    chart["datasets"] = {"rows": list(figure.rows)}
    chart["config"] = theme(background="white")
    return svg(chart)


def _data_uri(figure: Figure) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(static_svg(figure).encode()).decode()


def _payload(figure: Figure) -> dict[str, Any]:
    """The data from which the script draws a figure."""
    columns = figure.columns
    return {
        "chart": dict(figure.chart),
        "cell": figure.cell,
        "columns": columns,
        "rows": [[row[column] for column in columns] for row in figure.rows],
    }


def _library() -> Markup:
    """vega-embed, escaped for a script element."""
    return Markup(vega_embed().replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def _asset(name: str) -> str:
    return resources.files("tombola.report").joinpath(name).read_text(encoding="utf-8")
