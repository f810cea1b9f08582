"""The page in a real browser: it draws, fits, works with the keyboard, and loads nothing."""

from __future__ import annotations

import base64
import csv
import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support.chromium import CHROMIUM
from tests.support.reports import HOSTILE, document_of, make_names_hostile
from tombola.report.html import static_svg
from tombola.report.page import write_comparison, write_report
from tombola.report.prose import conclusion
from tombola.report.report_data import read_report_data

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page with"),
    pytest.mark.usefixtures("close"),
]


@dataclass
class Opened:
    """A page in the browser, with its console messages, errors and requests."""

    page: Any
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def opened(browser: Any, path: Path, width: int = 1280, **context: Any) -> Opened:
    page = browser.new_context(viewport={"width": width, "height": 800}, **context).new_page()
    found = Opened(page)
    page.on("console", lambda message: found.messages.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: found.messages.append(str(error)))
    page.on("request", lambda request: found.requests.append(request.url))
    page.goto(path.as_uri())
    if context.get("java_script_enabled", True):
        page.wait_for_selector("html[data-drawn]", timeout=20_000)
    return found


@pytest.fixture
def close(browser: Any) -> Iterator[None]:
    """Close what a test opened."""
    yield
    for context in browser.contexts:
        context.close()


def external_requests(found: Opened, path: Path) -> list[str]:
    return [url for url in found.requests if url != path.as_uri() and not url.startswith(("data:", "blob:"))]


@pytest.mark.parametrize("width", [1280, 390])
def test_figures_are_drawn_fit_and_load_nothing(
    browser: Any, page: Path, finished: Path, tmp_path: Path, width: int
) -> None:
    found = opened(browser, page, width)
    there = found.page
    assert there.locator(".answer").inner_text() == conclusion(read_report_data(finished).summary)
    figures = there.locator("figure").count()
    assert there.locator("figure.drawn .live svg.marks").count() == figures
    assert there.locator(".static:visible").count() == 0
    assert there.evaluate("document.documentElement.scrollWidth") == width
    wide = (
        "[...document.querySelectorAll('figure .live')].filter(one => one.scrollWidth > one.clientWidth + 1).length"
    )
    assert there.evaluate(wide) == 0
    picture = tmp_path / "page.png"
    there.screenshot(path=picture)
    assert not blank(there, picture)
    assert found.messages == []
    assert external_requests(found, page) == []


def blank(page: Any, picture: Path) -> bool:
    """Whether a picture has fewer than ten colours; the browser decodes it."""
    data = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
    colours = page.evaluate(
        """async (data) => {
            const image = Object.assign(new Image(), { src: data });
            await image.decode();
            const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
            canvas.drawImage(image, 0, 0);
            return new Set(new Uint32Array(canvas.getImageData(0, 0, image.width, image.height).data.buffer)).size;
        }""",
        data,
    )
    return bool(colours < 10)


def test_light_and_dark(browser: Any, page: Path) -> None:
    found = opened(browser, page, color_scheme="dark")
    there = found.page
    paper = "getComputedStyle(document.body).backgroundColor"
    label = "getComputedStyle(document.querySelector('.live svg .role-axis-label text')).fill"
    dark = there.evaluate(paper), there.evaluate(label)
    button = there.locator("#theme")
    assert (button.inner_text(), button.get_attribute("aria-pressed")) == ("Light", "true")
    button.click()
    there.wait_for_selector("html[data-drawn=light]")
    light = there.evaluate(paper), there.evaluate(label)
    assert (button.inner_text(), button.get_attribute("aria-pressed")) == ("Dark", "false")
    assert light[0] == "rgb(255, 255, 255)"
    assert dark[0] != light[0]
    assert dark[1] != light[1]
    there.reload()
    there.wait_for_selector("html[data-drawn=light]")  # the choice is kept
    assert found.messages == []


def save(page: Any, figure: Any, format_: str, folder: Path) -> Path:
    """Save a figure by its menu."""
    figure.locator(".save summary").click()
    with page.expect_download() as download:
        figure.locator(".formats > *").filter(has_text=format_).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_numbers_can_be_saved(browser: Any, page: Path, tmp_path: Path) -> None:
    found = opened(browser, page)
    path = save(found.page, found.page.locator("#figure-accuracy"), "CSV", tmp_path)
    assert path.name == "figure-1-accuracy.csv"
    lines = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert [(line["branch"], line["level"]) for line in lines] == [
        ("dense", "0"),
        *[("reinit", level) for level in "123"],
        *[("ticket", level) for level in "0123"],
    ]
    assert lines[0]["weights_left"] == "100"
    assert 0 <= float(lines[0]["low"]) <= float(lines[0]["mean"]) <= float(lines[0]["high"]) <= 100
    assert found.messages == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_saved_pictures_are_for_paper(browser: Any, page: Path, finished: Path, tmp_path: Path, scheme: str) -> None:
    found = opened(browser, page, color_scheme=scheme)
    figure = found.page.locator("#figure-stop")
    svg, png, pdf = (save(found.page, figure, kind, tmp_path) for kind in ("SVG", "PNG", "PDF"))
    assert [path.name for path in (svg, png, pdf)] == [f"figure-2-stop.{kind}" for kind in ("svg", "png", "pdf")]
    picture = next(each for each in document_of(finished).figures if each.name == "stop")
    assert svg.read_text(encoding="utf-8") == static_svg(picture)
    assert pdf.read_bytes().startswith(b"%PDF")
    width = int(float(ElementTree.fromstring(svg.read_text(encoding="utf-8")).attrib["width"]))
    assert struct.unpack(">I", png.read_bytes()[16:20])[0] == pytest.approx(3 * width, abs=3)
    assert corner(found.page, png) == [255, 255, 255, 255]
    assert found.messages == []


def test_the_menu_closes(browser: Any, page: Path) -> None:
    there = opened(browser, page).page
    menus = there.locator(".save")
    menus.first.locator("summary").click()
    assert there.locator(".save[open]").count() == 1
    menus.nth(1).locator("summary").click()
    assert there.locator(".save[open]").count() == 1
    there.keyboard.press("Escape")
    assert there.locator(".save[open]").count() == 0


def corner(page: Any, picture: Path) -> list[int]:
    """The red, green, blue and opacity of a picture's first pixel; the browser decodes it."""
    data = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
    found: list[int] = page.evaluate(
        """async (data) => {
            const image = Object.assign(new Image(), { src: data });
            await image.decode();
            const canvas = new OffscreenCanvas(1, 1).getContext("2d");
            canvas.drawImage(image, 0, 0);
            return [...canvas.getImageData(0, 0, 1, 1).data];
        }""",
        data,
    )
    return found


def test_the_keyboard_opens_tables_of_the_numbers(browser: Any, page: Path) -> None:
    found = opened(browser, page)
    there = found.page
    figures = there.locator("figure")
    for figure in figures.all():
        rows = json.loads(figure.locator(".payload").text_content())["rows"]
        button, numbers = figure.locator("button.table"), figure.locator(".numbers")
        assert (button.get_attribute("aria-expanded"), numbers.is_visible()) == ("false", False)
        button.focus()
        there.keyboard.press("Enter")
        assert (button.get_attribute("aria-expanded"), numbers.is_visible()) == ("true", True)
        assert numbers.get_attribute("id") == button.get_attribute("aria-controls")
        assert numbers.locator("tbody tr").count() == min(len(rows), 200)
        assert ("the CSV has them all" in numbers.locator("caption").inner_text()) == (len(rows) > 200)
        numbers.focus()
        assert numbers.evaluate("element => element === document.activeElement")
    assert any("CSV has them all" in text for text in there.locator(".numbers caption").all_inner_texts())
    accuracy = there.locator("#figure-accuracy")
    head = ["branch", "level", "weights left", "mean", "low", "high", "replicates", "verdict"]
    head += ["difference", "difference low", "difference high", "margin"]
    assert accuracy.locator("thead th[scope=col]").all_inner_texts() == head
    dense = accuracy.locator("tbody tr").first
    assert dense.locator("th[scope=row]").all_inner_texts() == ["dense"]
    assert dense.locator("td").all_inner_texts()[:2] == ["0", "100"]
    digits = [re.sub(r"e.*|\D", "", text).lstrip("0") for text in there.locator(".numbers td").all_inner_texts()]
    assert 4 < max(map(len, digits)) <= 6
    assert there.evaluate("document.documentElement.scrollWidth") == 1280
    there.emulate_media(media="print")
    assert there.locator(".numbers:visible").count() == 0
    there.emulate_media(media="screen")
    accuracy.locator("button.table").focus()
    there.keyboard.press("Space")
    assert accuracy.locator(".numbers:visible").count() == 0
    assert accuracy.locator("button.table").get_attribute("aria-expanded") == "false"
    there.keyboard.press("Enter")
    assert accuracy.locator("table").count() == 1  # created once
    assert found.messages == []


def test_the_keyboard_reaches_everything(browser: Any, page: Path) -> None:
    there = opened(browser, page).page
    reached = []
    there.locator("#figure-accuracy button.table").evaluate("button => button.click()")
    for _ in range(150):
        there.keyboard.press("Tab")
        name = "document.activeElement.id || document.activeElement.className || document.activeElement.localName"
        reached.append(there.evaluate(name))
        if reached[-1] == "configuration-text":
            break
    assert reached[0] == "skip"
    figures = there.locator("figure").count()
    assert reached.count("table") == figures
    assert reached.index("numbers-accuracy") > reached.index("table")
    assert reached.count("summary") >= figures
    assert reached.count("scroll") == there.locator(".scroll:not(.numbers):visible").count() >= 4
    assert {"theme", "copy", "command", "configuration-text"} <= set(reached)
    assert there.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_print_and_disabled_scripts_show_static_pictures(browser: Any, page: Path) -> None:
    plain = opened(browser, page, java_script_enabled=False).page
    assert plain.locator(".static:visible").count() == plain.locator("figure").count()
    assert plain.locator("button:visible").count() == 0
    printed = opened(browser, page).page
    printed.emulate_media(media="print")
    assert printed.locator(".static:visible").count() == printed.locator("figure").count()
    assert printed.locator(".live:visible, button:visible").count() == 0


WIDER = """
[...document.querySelectorAll("main *")].filter((one) => one.checkVisibility()
  && one.getBoundingClientRect().right > innerWidth + 1 && !one.closest(".scroll, pre, .live, .unseen")
).map((one) => one.outerHTML.slice(0, 80))
"""
"""The elements that are wider than the page, and not in a box that scrolls."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tables_fit_at_every_width(browser: Any, page: Path, scheme: str) -> None:
    there = opened(browser, page, color_scheme=scheme).page
    for width in (1280, 1024, 768, 390, 320):
        there.set_viewport_size({"width": width, "height": 800})
        assert there.evaluate("document.documentElement.scrollWidth") == width
        assert there.evaluate(WIDER) == []
        box, caption = there.locator(".scroll:has(#verdict-dense)"), there.locator("#verdict-dense caption")
        wide = box.evaluate("box => box.scrollWidth > box.clientWidth + 1")
        assert wide == (width < 700)
        there.wait_for_function("([box, wide]) => box.classList.contains('overflowing') === wide",
                                arg=[box.element_handle(), wide])  # fmt: skip
        hint = caption.evaluate("caption => getComputedStyle(caption, '::after').content")
        assert ("Scroll" in hint) == wide
        if wide:
            first = there.locator("#verdict-dense tbody th").first
            before = first.bounding_box()["x"]
            box.evaluate("box => box.scrollTo(200, 0)")
            assert first.bounding_box()["x"] == before  # it stays beside what is scrolled
            assert (
                there.evaluate("getComputedStyle(document.querySelector('#verdict-dense .detail')).display")
                == "block"
            )


def test_headings_are_in_order_and_tables_have_captions_and_scopes(browser: Any, page: Path) -> None:
    there = opened(browser, page).page
    levels = there.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(one => Number(one.localName[1]))")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert there.locator("table:not(:has(caption))").count() == 0
    assert there.locator("thead th:not([scope]), tbody th:not([scope=row])").count() == 0


def test_print_is_light_and_tables_keep_their_heads(browser: Any, page: Path) -> None:
    there = opened(browser, page, color_scheme="dark").page
    there.emulate_media(media="print", color_scheme="dark")
    style = "element => {{ const found = getComputedStyle(element); return found.{}; }}"
    assert there.locator("body").evaluate(style.format("backgroundColor")) == "rgb(255, 255, 255)"
    table = there.locator("#verdict-dense")
    assert table.locator("thead").evaluate(style.format("display")) == "table-header-group"
    assert table.locator(".printed").inner_text() == table.locator("caption").text_content()
    assert there.locator(".scroll:visible").first.evaluate(style.format("overflowX")) == "visible"
    assert there.locator("figure").first.evaluate(style.format("breakInside")) == "avoid"
    smallest = "img => img.getBoundingClientRect().width / img.naturalWidth"
    assert there.locator("figure:not(.wide) .static").first.evaluate(smallest) > 0.95  # so axes have their size


def test_a_comparison_draws(browser: Any, finished: Path, results: Path, tmp_path: Path) -> None:
    out = tmp_path / "comparison.html"
    write_comparison([finished, results], out)
    found = opened(browser, out, 390)
    assert found.page.locator("figure.drawn .live svg.marks").count() == 4
    assert found.page.evaluate("document.documentElement.scrollWidth") == 390
    assert found.messages == []
    assert external_requests(found, out) == []


def test_hostile_names_are_escaped_and_tooltips_show_values(browser: Any, results: Path, tmp_path: Path) -> None:
    make_names_hostile(results)
    write_report(results, tmp_path / "page.html")
    found = opened(browser, tmp_path / "page.html")
    there = found.page
    assert there.locator("figure.drawn .live svg.marks").count() == there.locator("figure").count()
    assert HOSTILE[:20] in "".join(there.locator("#figure-accuracy .live svg.marks text").all_text_contents())
    points = there.locator("#figure-accuracy .live .mark-symbol.role-mark path:not([fill='#ffffff'])")
    points.first.hover()
    there.wait_for_selector("#vg-tooltip-element.visible")
    for said in (HOSTILE[:20], "weights left (%)", "mean"):
        assert said in there.locator("#vg-tooltip-element").inner_text()
    for button in there.locator("button.table").all():
        button.click()
    assert HOSTILE in there.locator("#figure-accuracy tbody th").all_text_contents()
    assert there.locator("img:not(.static)").count() == 0
    assert found.messages == []  # an alert would be an error: the page forbids it
    assert external_requests(found, tmp_path / "page.html") == []
