from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import tiny
from tombola._run_experiment import run_experiment
from tombola.pruning.scores import ROUNDS, SCORES


@pytest.mark.parametrize("score", SCORES)
def test_a_search_prunes_by_every_score(score: str, tmp_path: Path) -> None:
    recipe = tiny(replicates=1, search__levels=1, search__score=score, training__length="20it", controls={})
    results = run_experiment(recipe, tmp_path / "results", engine="eager")
    left = 1280 - round(0.4 * 1280), 200 - round(0.4 * 200), 100 - round(0.2 * 100)  # 64 - 20 - 10 - 10
    assert [row.weights for row in results.rows] == [1580, sum(left)]


def test_rounds_are_those_of_known_scores() -> None:
    assert set(ROUNDS) <= set(SCORES)
