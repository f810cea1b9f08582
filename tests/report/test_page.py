"""The page: its contents for complete and damaged results, and that names are escaped."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import struct
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.report_data import report_data, report_row
from tests.support.reports import (
    HOSTILE,
    Elements,
    document_of,
    figure_names,
    make_names_hostile,
    page_of,
    problems_of,
)
from tombola.experiments.results_schema import Row
from tombola.report.figures.figure import MissingFigure
from tombola.report.html import render
from tombola.report.page import _write, write_comparison, write_figures, write_report
from tombola.report.page_sections import document
from tombola.report.prose import conclusion
from tombola.report.report_data import read_report_data
from tombola.utils.errors import InputError
from tombola.utils.libraries import documentation_url

MEBIBYTE = 2**20


def test_a_page_has_all_sections(page: Path, finished: Path) -> None:
    elements = Elements(page.read_text(encoding="utf-8"))
    text = elements.text
    for said in (
        conclusion(read_report_data(finished).summary),
        "The verdict, level by level",
        "Training accuracy and generalisation",
        "Early-stopping iteration",
        "reinit",
        'evaluate_every = "10it"',
        "tombola run tiny --out 'my results'",
        "sparse (loop)",
    ):
        assert said in text
    assert "Incomplete." not in text
    assert page.stat().st_size < 2 * MEBIBYTE


def test_plotting_libraries_are_imported_only_for_a_page() -> None:
    code = "import sys, tombola, tombola.cli; print({'altair', 'vl_convert', 'jinja2'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_a_page_loads_nothing(page: Path) -> None:
    elements = Elements(page.read_text(encoding="utf-8"))
    for tag, attributes in elements.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag
        for name in ("src", "href", "srcset", "data", "poster"):
            value = attributes.get(name) or ""
            files = ("ticket.safetensors", "../tiny/experiment.toml", "tiny/experiment.toml")
            if tag == "a" and value in (*files, documentation_url()):
                continue  # loaded only if a reader follows it
            kinds = ("#", "data:image/svg+xml;base64,", "data:application/pdf;base64,")
            assert value.startswith(kinds) or not value, value
    policies = [a["content"] for tag, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    ]


def test_figures_have_descriptions_and_static_pictures(page: Path) -> None:
    tags = Elements(page.read_text(encoding="utf-8")).tags
    figures = sum(tag == "figure" for tag, _ in tags)
    assert figures >= 11
    assert figures == sum(tag == "img" and bool(a.get("alt")) for tag, a in tags)
    assert figures == sum(a.get("class") == "live" and bool(a.get("aria-label")) for _, a in tags)


def test_names_are_escaped(results: Path) -> None:
    make_names_hostile(results)
    hostile = Elements(page_of(results.parent / "tiny"))
    plain = Elements(render(document(report_data([report_row(0, 0)]))))
    assert hostile.text.count(HOSTILE) > 5
    more = {"details", "summary", "strong", "ul", "li"}
    assert {tag for tag, _ in hostile.tags} <= {tag for tag, _ in plain.tags} | more
    assert not any("onerror" in attributes for _, attributes in hostile.tags)
    assert not any("alert(1)" in script and "<" in script for script in hostile.scripts)
    drawn = [json.loads(script) for script in hostile.scripts if script.startswith('{"chart"')]
    assert any(HOSTILE in row for figure in drawn for row in figure["rows"])


def test_unfinished_results_are_marked(results: Path) -> None:
    status = json.loads((results / "status.json").read_text())
    (results / "status.json").write_text(json.dumps({**status, "finished": False}))
    text = Elements(page_of(results)).text
    assert "Incomplete." in text
    assert "not finished: 21 of 21 runs" in text
    assert "Unfinished: 21 of 21 runs." in text


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a results folder"):
        write_report(tmp_path, tmp_path / "page.html")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([report_row(0, 0)], "One replicate"),
        ([report_row(r, 0) for r in (0, 1)], "no level has at most 50%"),
        ([report_row(0, level) for level in range(3)], "too few replicates"),
        ([report_row(r, level, failed=True) for r in (0, 1) for level in range(3)], "6 runs diverged"),
        ([], "Nothing is finished yet."),
    ],
)
def test_a_page_of_few_results(rows: list[Row], said: str) -> None:
    page = render(document(report_data(rows, replicates=len({r.replicate for r in rows}) or 1)))
    assert said in Elements(page).text


def test_the_file_appears_whole_or_not_at_all(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    write_report(results, out)
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    for folder, where in ((out.parent, "it is a folder"), (out / "page.html", "below a file")):
        with pytest.raises(InputError, match="cannot be written"):
            _write(folder, where)
    assert [path.name for path in tmp_path.rglob("*.tmp")] == []


def test_a_comparison(results: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(results, tmp_path / "other"))
    configuration = other / "experiment.toml"
    configuration.write_text(configuration.read_text().replace("lr = 0.005", "lr = 0.006"))
    out = tmp_path / "page.html"
    write_comparison([results, other], out)
    page = out.read_text(encoding="utf-8")
    elements = Elements(page)
    assert "training.lr" in elements.text
    assert "0.006" in elements.text
    assert "training.batch_size" not in elements.text
    drawn = [json.loads(script) for script in elements.scripts if script.startswith('{"chart"')]
    assert {row[0] for figure in drawn for row in figure["rows"]} == {"tiny", "other"}
    assert re.findall(r'id="figure-([a-z]+)"', page) == ["accuracy", "stop", "gap", "cost"]
    assert elements.text.count(conclusion(read_report_data(results).summary)) == 2

    write_comparison([results] * 4, out)
    assert 'class="answer"' not in out.read_text(encoding="utf-8")
    assert Elements(out.read_text(encoding="utf-8")).text.count(conclusion(read_report_data(results).summary)) == 4

    with pytest.raises(InputError, match="at least one"):
        write_comparison([], out)


def test_figures_as_files(finished: Path, tmp_path: Path) -> None:
    written = write_figures(finished, tmp_path / "figures")
    page = document_of(finished)
    names = [f"{page.file_name(figure)}.{kind}" for figure in page.figures for kind in ("svg", "pdf", "png", "csv")]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(names)
    assert names[0] == "figure-1-accuracy.svg"
    accuracy = tmp_path / "figures" / "figure-1-accuracy"
    lines = list(csv.DictReader(accuracy.with_suffix(".csv").read_text(encoding="utf-8").splitlines()))
    assert [line["level"] for line in lines if line["branch"] == "dense"] == ["0"]  # not the end of its line
    assert [line["level"] for line in lines if line["branch"] == "ticket"] == ["0", "1", "2", "3"]
    assert {line["branch"] for line in lines} == {"ticket", "dense", "reinit"}
    picture = accuracy.with_suffix(".svg").read_text(encoding="utf-8")
    assert html.unescape(picture).count("reinit") == 1


def test_saved_figures_are_for_paper(finished: Path, tmp_path: Path) -> None:
    pages = [path for path in write_figures(finished, tmp_path) if path.suffix == ".svg"]
    for path in pages:
        root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        paper = root[0]
        assert paper.get("fill") == "white"
        for side in ("width", "height"):
            assert paper.get(side) in ("100%", root.get(side))  # versions of vl-convert write either
        width, height = (int(float(root.attrib[side])) for side in ("width", "height"))
        assert 400 < width < 1200
        content = path.with_suffix(".png").read_bytes()
        assert content.startswith(b"\x89PNG")
        assert struct.unpack(">II", content[16:24]) == pytest.approx((3 * width, 3 * height), abs=3)
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_the_same_results_give_the_same_charts(finished: Path) -> None:
    one, other = (document(read_report_data(finished)).figures for _ in range(2))
    assert one == other


@pytest.mark.parametrize("table", ["levels", "layers", "curves"])
def test_damaged_tables_are_named_and_the_rest_is_shown(results: Path, table: str) -> None:
    path = results / f"{table}.parquet"
    path.write_bytes(path.read_bytes()[:100])
    report = document_of(results)
    assert f"{table}.parquet is damaged" in problems_of(report)
    assert any(section.of(MissingFigure) for section in report.sections)
    assert "accuracy" in figure_names(report) or table == "levels"


def test_missing_files_are_named(results: Path) -> None:
    for name in ("levels.parquet", "layers.parquet", "curves.parquet", "status.json"):
        (results / name).unlink()
    report = document_of(results)
    assert "Nothing is finished" in report.conclusions[0][1]
    for name in ("levels.parquet", "status.json"):
        assert problems_of(report).count(f"{name} does not exist") == 1


@pytest.mark.parametrize(
    "status",
    [
        '{"runs": {"foo": 1}}',
        '{"engines": []}',
        '{"engines": {"x": 1}}',
        '{"costs": [1]}',
        '{"costs": null}',
        '{"inputs": ["a", "b"]}',
        '{"finished": "yes"}',
        "[]",
        "not JSON",
    ],
)
def test_invalid_statuses_are_named_and_the_rest_is_shown(results: Path, status: str) -> None:
    (results / "status.json").write_text(status)
    report = document_of(results)
    assert ("status.json is damaged" in problems_of(report)) == ("foo" not in status)
    assert "accuracy" in figure_names(report)


@pytest.mark.parametrize(("table", "other"), [*permutations(("levels", "layers", "curves"), 2)])
def test_tables_of_the_wrong_shape_are_named(results: Path, table: str, other: str) -> None:
    shutil.copy(results / f"{other}.parquet", results / f"{table}.parquet")
    assert f"{table}.parquet is damaged" in problems_of(document_of(results))


def test_noisy_labels_and_fewer_examples_are_stated(results: Path) -> None:
    configuration = results / "experiment.toml"
    text = configuration.read_text(encoding="utf-8")
    text = text.replace("fraction = 1.0", "fraction = 0.25").replace("label_noise = 0.0", "label_noise = 0.3")
    configuration.write_text(text, encoding="utf-8")
    section = next(section for section in document_of(results).sections if section.name == "generalisation")
    said = " ".join(section.paragraphs)
    assert "25% of the training examples were used, except 200" in said
    assert "the labels of 30% of them" in said
