"""Where results come from, as the page says it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.support.reports import Elements, document_of, page_of
from tombola.experiments.results import read_results
from tombola.experiments.session import Session
from tombola.report.provenance_section import facts, links, moment, provenance


def session(minute: int = 0, **changes: object) -> Session:
    time = datetime(2026, 11, 30, 1, minute, tzinfo=UTC)
    values = {
        "began": time,
        "ended": time + timedelta(minutes=1),
        "trained": 7,
        "processor": "a processor",
        "system": "Linux",
        "python": "3.12.1",
        "versions": {"torch": "2.13.0", "tombola": "0.1.0"},
    }
    return Session.model_validate(values | changes)


def test_a_results_folder_says_when_and_where_it_was_trained(finished: Path) -> None:
    (found,) = read_results(finished).sessions
    assert found.trained == 21
    assert found.began <= found.ended
    text = Elements(page_of(finished)).text
    for said in (found.processor, found.python, found.versions["torch"], moment(found.began), str(finished)):
        assert said in text


def test_facts_of_a_session(finished: Path) -> None:
    results = read_results(finished)
    found = facts(results, [session(tombola_commit="0123456789ab-dirty", project_commit="ba9876543210")])
    assert found["trained"] == "2026-11-30 01:00 UTC to 2026-11-30 01:01 UTC; 7 runs"
    assert (found["processor"], found["Python"], found["PyTorch"]) == ("a processor", "3.12.1", "2.13.0")
    assert found["tombola"] == "0.1.0, commit 0123456789ab with uncommitted changes"
    assert found["commit of the working directory"] == "ba9876543210"


def test_sessions_in_the_same_environment_are_one_column(results: Path) -> None:
    status = json.loads((results / "status.json").read_text())
    status["sessions"] = [json.loads(one.model_dump_json()) for one in (session(), session(5))]
    (results / "status.json").write_text(json.dumps(status))
    (table,) = provenance(read_results(results)).parts
    assert table.rows[0] == ["trained", "2026-11-30 01:00 UTC to 2026-11-30 01:06 UTC; 14 runs"]
    status["sessions"].append(json.loads(session(9, processor="another").model_dump_json()))
    (results / "status.json").write_text(json.dumps(status))
    (table,) = provenance(read_results(results)).parts
    assert table.rows[1] == ["processor", "a processor", "another"]


def test_folders_of_older_versions_have_versions_only(results: Path) -> None:
    status = json.loads((results / "status.json").read_text())
    del status["sessions"]
    (results / "status.json").write_text(json.dumps(status))
    (table,) = provenance(read_results(results)).parts
    assert dict(table.rows) == {"tombola": status["versions"]["tombola"], "PyTorch": status["versions"]["torch"],
                                "NumPy": status["versions"]["numpy"]}  # fmt: skip


@pytest.mark.parametrize(
    ("page", "target"),
    [
        ("report.html", "experiment.toml"),
        ("../page.html", "tiny/experiment.toml"),
        ("a/b.html", "../experiment.toml"),
    ],
)
def test_links_lead_from_the_page_to_the_folder(results: Path, page: str, target: str) -> None:
    found = {link.text: link.target for link in links(read_results(results), results / page)}
    assert found["experiment.toml"] == target
    assert ("ticket.safetensors" in found) == (results / "ticket.safetensors").exists()


def test_names_of_folders_are_quoted_in_links(results: Path) -> None:
    odd = results.rename(results.parent / "javascript:alert(1) #?")
    targets = [link.target for link in links(read_results(odd), odd.parent / "page.html")]
    assert targets[-1] == "javascript%3Aalert%281%29%20%23%3F/experiment.toml"


def test_a_page_is_titled_by_its_folder(results: Path) -> None:
    found = document_of(results.rename(results.parent / "other"))
    assert (found.title, found.subtitle, found.window_title) == ("other", "tiny", "other – tiny")


def test_time_zones() -> None:
    time = datetime(2026, 11, 30, 1, 51, tzinfo=timezone(timedelta(hours=-3, minutes=-30)))
    assert moment(time) == "2026-11-30 01:51 UTC-03:30"
