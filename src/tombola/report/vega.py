"""What vl-convert makes: pictures of charts for paper, and the JavaScript library that draws them in a page."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from typing import Any

import vl_convert

from tombola.report.text_cache import cached_text


def svg(chart: dict[str, Any]) -> str:
    """A Vega-Lite chart as an SVG picture. Drawing takes a tenth of a second, so pictures are kept."""

    def draw() -> str:
        drawn: str = vl_convert.vegalite_to_svg(chart, allowed_base_urls=[])
        return drawn

    described = f"{_version()} {json.dumps(chart)}"
    return cached_text("pictures", f"{hashlib.sha256(described.encode()).hexdigest()}.svg", draw)


SCALE = 3
"""The pixels of a PNG for each one of the SVG picture."""


def png(picture: str) -> bytes:
    """An SVG picture as PNG, `SCALE` times as wide."""
    drawn: bytes = vl_convert.svg_to_png(picture, scale=SCALE)
    return drawn


def pdf(picture: str) -> bytes:
    """An SVG picture as PDF, with its fonts."""
    drawn: bytes = vl_convert.svg_to_pdf(picture)
    return drawn


def vega_embed() -> str:
    """vega-embed with its dependencies, which assigns `window.vegaEmbed`. Bundling takes two seconds, longer than all
    the rest of a page, so it is kept."""

    def bundle() -> str:
        bundled: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
        return bundled

    return cached_text("vega-embed", f"{_version()}.js", bundle)


def _version() -> str:
    return metadata.version("vl-convert-python")
