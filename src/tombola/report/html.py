"""A document as one HTML file without external resources."""

from __future__ import annotations

import base64
import json
import re
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from tombola.report.document import Document, Table, Text
from tombola.report.figures.figure import HOVER, Figure, MissingFigure, sized
from tombola.report.figures.style import theme
from tombola.report.vega import SCALE, pdf, svg, vega_embed

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
    environment.filters["parts"] = _parts
    environment.filters["static"] = _data_uri
    environment.filters["pdf"] = _pdf_uri
    environment.filters["payload"] = _payload
    return environment.get_template("page.html.j2").render(
        document=document,
        **{kind.__name__: kind for kind in (Figure, MissingFigure, Table, Text)},
        pictures=pictures,
        style=Markup(_asset("page.css") + ("" if pictures else PRINTED)),
        script=Markup(_asset("page.js")),
        library=_library() if document.figures else Markup(""),
        scale=SCALE,
        themes={"light": theme(), "dark": theme(dark=True)},
    )


def static_svg(figure: Figure) -> str:
    """A figure as a static SVG picture for paper: light, on white."""
    chart = _without_hover(json.loads(json.dumps(sized(figure))))
    chart["datasets"] = {"rows": list(figure.rows)}
    chart["config"] = theme(background="white", columns=6 if figure.wide else 4)
    return svg(chart)


def _without_hover(chart: dict[str, Any]) -> dict[str, Any]:
    for key in ("layer", "concat"):
        if key in chart:
            chart[key] = [_without_hover(each) for each in chart[key] if each.get("name") != HOVER]
    return chart


def _data_uri(figure: Figure) -> str:
    return _encoded("image/svg+xml", static_svg(figure).encode())


def _pdf_uri(figure: Figure) -> str:
    return _encoded("application/pdf", pdf(static_svg(figure)))


def _encoded(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _payload(figure: Figure) -> dict[str, Any]:
    """The data from which the script draws a figure."""
    columns = figure.columns
    return {
        "chart": dict(figure.chart),
        "cell": figure.cell,
        "columns": columns,
        "rows": [[row[column] for column in columns] for row in figure.rows],
    }


def _parts(cell: str) -> tuple[str, str]:
    """A number and what follows it, such as its bounds, which may stand below it: `−0.33` and `[−0.69, +0.02]`."""
    found = re.fullmatch(r"(\S+) ([\[(±].*)", cell)
    return (found[1], found[2]) if found else (cell, "")


def _library() -> Markup:
    """vega-embed, escaped for a script element."""
    return Markup(vega_embed().replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def _asset(name: str) -> str:
    return resources.files("tombola.report").joinpath(name).read_text(encoding="utf-8")
