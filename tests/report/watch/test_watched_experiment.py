"""How far an experiment is, as another process sees it; one that is killed is seen as interrupted."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.chromium import CHROMIUM
from tombola.experiments.results import read_results
from tombola.report.watch.server import WatchServer
from tombola.report.watch.watched_experiment import ExperimentProgress, read_progress, version

WAIT = 60.0


@contextmanager
def running(folder: Path, gate: Path) -> Iterator[None]:
    """An experiment whose runs wait for `gate`; it is killed at the end of the block."""
    gate.write_text("0")
    command = [sys.executable, "-m", "tests.support.gated_experiment", str(folder), str(gate)]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


def wait_for(folder: Path, reached: Callable[[ExperimentProgress], bool]) -> ExperimentProgress:
    ends = time.monotonic() + WAIT
    while not reached(found := read_progress(folder)):
        assert time.monotonic() < ends, found
        time.sleep(0.05)
    return found


def test_a_killed_experiment_is_interrupted_and_can_be_read(tmp_path: Path) -> None:
    folder, gate = tmp_path / "out", tmp_path / "gate"
    assert read_progress(folder).state == "waiting"
    with running(folder, gate):
        gate.write_text("5")
        begun = wait_for(folder, lambda found: found.done == 5)
        assert (begun.state, begun.expected) == ("running", 20)
        assert begun.seconds_left is not None
    assert read_progress(folder).state == "interrupted"
    results = read_results(folder)
    assert (len(results.rows), results.finished, results.problems) == (5, False, [])


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page with")
def test_the_page_is_renewed_in_place(browser: Any, tmp_path: Path, serve: Callable[[Path], WatchServer]) -> None:
    folder, gate = tmp_path / "out", tmp_path / "gate"
    messages: list[str] = []
    page = browser.new_context(viewport={"width": 1280, "height": 500}).new_page()
    page.set_default_timeout(1000 * WAIT)
    page.on("console", lambda message: messages.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: messages.append(str(error)))
    server = serve(folder)
    page.goto(server.url)
    page.wait_for_selector("#state[data-state=waiting]")

    def report() -> Any:
        """The frame with the newest report."""
        newest = json.dumps(version(folder))  # it is made again some time after the last one
        return page.wait_for_selector(f"iframe[data-version={newest}]").content_frame()

    with running(folder, gate):
        gate.write_text("3")
        wait_for(folder, lambda found: found.done == 3)
        page.wait_for_selector("#done[value='3']")
        page.wait_for_selector("#state[data-state=running]")
        assert page.locator("#provisional").is_visible()
        first = report()
        assert "Provisional" in first.locator(".note").first.inner_text()
        tested = first.locator("#verdict-dense tbody").inner_text()
        first.locator("#figure-accuracy button.table").click()
        first.locator("#figure-accuracy .numbers").wait_for()
        first.evaluate("document.getElementById('verdict-dense').scrollIntoView({ behavior: 'instant' })")
        place = "document.getElementById('verdict-dense').getBoundingClientRect().top"
        before = first.evaluate(place)
        gate.write_text("100")
        wait_for(folder, lambda found: found.state == "finished")
        page.wait_for_selector("#state[data-state=finished]")
    last = report()
    assert last.locator("#verdict-dense tbody").inner_text() != tested  # levels without all replicates are not tested
    assert abs(last.evaluate(place) - before) <= 2
    assert last.evaluate("scrollY") > 100
    assert last.locator("#figure-accuracy .numbers").is_visible()
    assert last.locator("figure.drawn .live svg.marks").count() == last.locator("figure").count() > 0
    assert not page.locator("#provisional").is_visible()
    assert messages == []
    page.context.close()
