"""What experiments are called: by their folder, and by what they change of the packaged recipe."""

from __future__ import annotations

from pathlib import Path

from tests.support.recipes import tiny
from tombola.experiments.experiment_title import experiment_label, experiment_title, overrides
from tombola.experiments.recipe import load_recipe


def test_a_title_has_the_folder_and_the_overrides() -> None:
    signs = load_recipe("digits", ["controls.reuse_sign=1", "replicates=3"])
    assert experiment_title(signs, Path("results/signs")) == "signs – digits with replicates=3, controls.reuse_sign=1"
    assert experiment_title(signs, Path("results/digits")) == "digits with replicates=3, controls.reuse_sign=1"
    assert experiment_title(load_recipe("digits"), Path("signs")) == "signs – digits"
    assert experiment_title(load_recipe("digits")) == "digits"


def test_the_current_folder_has_its_name() -> None:
    assert experiment_label(tiny(), Path()) == Path.cwd().name


def test_a_recipe_that_does_not_come_with_tombola_changes_nothing() -> None:
    assert overrides(tiny(replicates=7)) == []


def test_what_is_removed_and_added_is_named_once() -> None:
    assert overrides(load_recipe("digits", ["controls.reinit="])) == ["no controls.reinit"]
    assert overrides(load_recipe("digits", ["stability.candidates=['0it']"])) == ['stability.candidates=["0it"]']


def test_a_value_that_becomes_a_table_is_not_removed() -> None:
    assert overrides(load_recipe("digits", ["controls.reinit={draws=1, levels=[3]}"])) == [
        "controls.reinit.levels=[3]"
    ]
    reinit = ["controls.reinit=2"]  # a table in this recipe
    assert overrides(load_recipe("digits-permuted", reinit)) == reinit
    several = load_recipe("digits", ["controls.reinit={draws=2, levels=[3]}"])
    assert overrides(several) == ["controls.reinit.draws=2", "controls.reinit.levels=[3]"]


def test_many_overrides_are_counted() -> None:
    changed = load_recipe("digits", [*(f"training.{key}" for key in ("lr=0.1", "momentum=0.5", "nesterov=true")),
                                     "replicates=3", "seed=1", "search.levels=2"])  # fmt: skip
    assert len(overrides(changed)) == 6
    assert experiment_title(changed).endswith(" and 2 more")
