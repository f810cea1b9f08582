"""Parts of an experiment, which several processes train."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.errors import raises_input_error
from tests.support.recipes import tiny
from tombola._run_experiment import run_experiment
from tombola.experiments.experiment import count_runs
from tombola.experiments.part import Part
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.studies.request import RunRequest

SHORT = {"training__length": "10it", "search__levels": 1, "controls__reinit": 1}


@pytest.mark.parametrize(("count", "of"), [(1, 1), (5, 1), (5, 3), (5, 5), (20, 8), (7, 2)])
def test_parts_have_each_replicate_once_and_sizes_differ_by_one_at_most(count: int, of: int) -> None:
    parts = [Part.parse(f"{number}/{of}").replicates(count) for number in range(1, of + 1)]
    assert sorted(replicate for part in parts for replicate in part) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert min(map(len, parts)) >= 1


@pytest.mark.parametrize(
    "text",
    ["0/4", "5/4", "a/b", "", "/", "1", "1/", "/2", "-1/2", "1/2/3", " 1/2", "1.0/2", "²/3", "1/" + "9" * 5000],
)
def test_anything_else_is_refused(text: str) -> None:
    with raises_input_error("part", "2/8"):
        Part.parse(text)


def test_more_parts_than_replicates_are_refused() -> None:
    with raises_input_error("part", "3", "2 replicates"):
        count_runs(tiny(), Part(1, 3))


def test_the_runs_of_the_parts_are_those_of_the_whole() -> None:
    recipe = tiny(replicates=5)
    assert sum(count_runs(recipe, Part(number, 3)) for number in (1, 2, 3)) == count_runs(recipe)


def test_only_the_replicates_of_a_part_are_studied() -> None:
    experiment = RecipeExperiment(tiny(replicates=3))
    (study,) = experiment.only(Part(2, 3)).studies()
    request = next(study)
    assert isinstance(request, RunRequest)
    assert request.run == experiment.dense(1)
    assert len(experiment.studies()) == 3


def test_a_part_leaves_its_runs_in_the_store_and_no_folder(tmp_path: Path) -> None:
    recipe = tiny(replicates=3, **SHORT)

    def train(part: str | None) -> tuple[int, int, set[int], bool]:
        results = run_experiment(recipe, tmp_path / "out", workers=1, progress=False, part=part)
        counts = results.tally.trained, results.tally.from_store
        return *counts, {row.replicate for row in results.rows}, results.finished

    assert train("2/2") == (3, 0, {1}, False)
    assert train("2/2") == (0, 3, {1}, False)
    assert not (tmp_path / "out").exists()
    assert train(None) == (6, 3, {0, 1, 2}, True)


def test_a_part_for_the_folder_of_another_experiment_is_refused(tmp_path: Path) -> None:
    run_experiment(tiny(**SHORT), tmp_path / "out", workers=1, progress=False)
    with raises_input_error("another configuration", "lr"):
        run_experiment(tiny(**SHORT, training__lr=0.1), tmp_path / "out", workers=1, progress=False, part="1/2")
