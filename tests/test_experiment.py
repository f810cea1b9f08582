from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from tests.conftest import tiny
from tests.studies.test_search import answer
from tombola.errors import InputError
from tombola.experiment import Experiment, expected_runs


def test_each_replicate_has_its_own_weights_split_and_order() -> None:
    experiment = Experiment(tiny(replicates=3))
    runs = [experiment.dense(replicate) for replicate in range(3)]
    for seeds in zip(*((run.start.seed, run.data.seed, run.seed) for run in runs), strict=True):
        assert len(set(seeds)) == 3
    assert experiment.dense(1) == Experiment(tiny(replicates=9)).dense(1)  # more replicates change none of them
    assert experiment.dense(1) != Experiment(tiny(seed=1)).dense(1)


@pytest.mark.parametrize("one_shot", [False, True])
def test_a_study_searches_and_then_controls(one_shot: bool) -> None:
    recipe = tiny(search__one_shot=one_shot)
    asked, _ = answer(Experiment(recipe).study(0))
    asks = [ask for question in asked for ask in question]
    assert len(asks) * recipe.replicates == expected_runs(recipe)
    assert [ask.level for ask in asks if ask.branch == "ticket"] == [0, 1, 2, 3]
    assert [(ask.level, ask.draw) for ask in asks if ask.branch == "reinit"] == [
        (level, draw) for level in (1, 2, 3) for draw in (0, 1)
    ]
    assert len({ask.run.key for ask in asks}) == len(asks)
    assert [len(question) for question in asked] == ([1, 3, 6] if one_shot else [1, 1, 1, 1, 6])


def test_a_final_density_is_reached() -> None:
    asked, _ = answer(Experiment(tiny(search={"levels": 5, "density": 0.1})).study(0))
    last = max((ask for question in asked for ask in question), key=lambda ask: ask.level)
    assert last.run.mask.density == pytest.approx(0.1, abs=0.002)


def test_random_scores_differ_by_level_and_replicate() -> None:
    experiment = Experiment(tiny(search__score="random"))
    masks = [answer(experiment.study(r))[0][1][0].run.mask for r in (0, 1)]
    assert masks[0] != masks[1]
    assert masks[0].counts == masks[1].counts
    assert answer(experiment.study(0))[0][1][0].run.mask == masks[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__name": "digit"}, 'unknown data set "digit": did you mean "digits"?'),
        ({"data__validation": 1197}, "training.batch_size: should be at most the 0 training examples"),
        ({"data__validation": 5000}, "training.batch_size: should be at most the 0 training examples"),
        ({"training__batch_size": 998}, "training.batch_size: should be at most the 997 training examples"),
        ({"model__name": "lenet"}, 'unknown network "lenet"'),
        ({"model__name": "lenet-300"}, 'did you mean "lenet-300-100"?'),
        ({"model__width": [3]}, 'unknown option of network "mlp" "width": did you mean "widths"?'),
        ({"model": {"name": "mlp"}}, "model.widths: missing"),
        ({"model__widths": "wide"}, "model.widths: input should be a valid list"),
        ({"model__init": "normal"}, "model.init: input should be 'glorot-normal' or 'kaiming-normal'"),
        ({"model": {"name": "no_such_module:Network"}}, 'cannot call "no_such_module:Network"'),
        ({"model": {"name": "torch.nn:Linear"}}, 'cannot call "torch.nn:Linear": missing a required argument'),
        ({"model": {"name": "torch:zeros", "size": [3]}}, "cannot call"),
        ({"model": {"name": f"{__name__}:not_a_module"}}, "made a int, not a torch.nn.Module"),
        ({"model": {"name": "torch.nn:Linear", "in_features": 8, "out_features": 4}}, "not (2, 10)"),
        ({"model": {"name": "torch.nn:Linear", "in_features": 9, "out_features": 4}}, "does not take examples of"),
        ({"model": {"name": f"{__name__}:Unprunable"}}, "no linear or convolutional layer"),
        ({"search__levels": 40}, "would remove nothing; set search.levels to at most"),
        ({"search": {"levels": 9, "rate": 0.6}}, "leaves layer output.weight (100 weights) empty at level 6"),
        ({"search__leave_out": ["fc9"]}, "unknown layer"),
    ],
)
def test_what_would_not_work_is_said_before_anything_is_trained(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Experiment(tiny(**changes))
    assert message.lower() in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def not_a_module() -> int:
    return 3


class Unprunable(nn.Module):
    def forward(self, x):  # type: ignore[no-untyped-def]
        return x.flatten(1)[:, :10]
