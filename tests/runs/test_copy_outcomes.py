"""Copies between stores, and the check of outcomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.outcomes import random_mask
from tests.support.stores import damage, entry, filled, keys_of
from tombola.runs.check_outcomes import check_outcomes
from tombola.runs.copy_outcomes import copy_outcomes
from tombola.runs.run import Run
from tombola.runs.store import Store


def runs_of(dense: Run, count: int = 5) -> list[Run]:
    return [dense.masked(random_mask(dense, 0.5, seed)) for seed in range(count)]


def test_outcomes_are_copied_byte_for_byte_and_only_once(dense: Run, tmp_path: Path) -> None:
    runs = runs_of(dense)
    source, target = filled(tmp_path / "a", runs), filled(tmp_path / "b", runs[:2])
    there = entry(target, runs[0].key).stat().st_ino
    report = copy_outcomes(source, target)
    assert (report.copied, report.there, report.damaged) == (3, 2, [])
    assert report.bytes == sum(entry(source, run.key).stat().st_size for run in runs[2:])
    assert {run.key: entry(target, run.key).read_bytes() for run in runs} == {
        run.key: entry(source, run.key).read_bytes() for run in runs
    }
    assert entry(target, runs[0].key).stat().st_ino == there
    assert all(target.get(run) is not None for run in runs)
    assert copy_outcomes(source, target).there == 5


def test_only_what_is_asked_for_is_copied(dense: Run, tmp_path: Path) -> None:
    first, *rest = runs_of(dense)
    source, target = filled(tmp_path / "a", [first, *rest]), Store(tmp_path / "b")
    seen: list[tuple[int, int]] = []
    copy_outcomes(source, target, {first.key, "0" * 32}, lambda done, of: seen.append((done, of)))
    assert keys_of(target) == {first.key}
    assert seen == [(1, 1)]


@pytest.mark.parametrize("harm", ["flip", "truncate", "another run"])
def test_damaged_outcomes_are_reported_and_left_out(dense: Run, tmp_path: Path, harm: str) -> None:
    runs = runs_of(dense)
    source, target = filled(tmp_path / "a", runs), Store(tmp_path / "b")
    path = entry(source, runs[1].key)
    if harm == "flip":
        damage(path)
    elif harm == "truncate":
        path.write_bytes(path.read_bytes()[:-3])
    else:
        path.write_bytes(entry(source, runs[0].key).read_bytes())
    report = copy_outcomes(source, target)
    assert report.copied == 4
    assert len(report.damaged) == 1
    assert str(path) in report.damaged[0]
    assert keys_of(target) == {run.key for run in runs} - {runs[1].key}
    assert path.exists()
    found = check_outcomes(source, sorted(keys_of(source)), lambda done, of: None)  # noqa: ARG005
    assert found.keys() == {runs[1].key}


def test_an_interrupted_copy_goes_on(dense: Run, tmp_path: Path) -> None:
    runs = runs_of(dense)
    source, target = filled(tmp_path / "a", runs), Store(tmp_path / "b")

    def interrupt(done: int, of: int) -> None:  # noqa: ARG001
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_outcomes(source, target, progress=interrupt)
    assert len(keys_of(target)) == 2
    report = copy_outcomes(source, target)
    assert (report.copied, report.there) == (3, 2)


def test_outcomes_that_are_removed_meanwhile_are_no_failure(dense: Run, tmp_path: Path) -> None:
    runs = runs_of(dense)
    source, target = filled(tmp_path / "a", runs), Store(tmp_path / "b")

    def remove(done: int, of: int) -> None:  # noqa: ARG001
        if done == 1:
            for key in keys_of(source) - keys_of(target):
                entry(source, key).unlink()

    report = copy_outcomes(source, target, progress=remove)
    assert (report.copied, report.damaged) == (1, [])
