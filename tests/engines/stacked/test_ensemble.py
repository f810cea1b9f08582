"""The data of runs that are trained as one: what they have in common is there once."""

from __future__ import annotations

import pytest
import torch

from tests.engines.helpers import dense_run
from tombola.engines.stacked.ensemble import Pool
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.description import Data

CPU = torch.device("cpu")


def data(seed: int, **changes: object) -> Data:
    return dense_run(**{f"data__{name}": value for name, value in changes.items()}).data.model_copy(
        update={"seed": seed}
    )


def test_with_noise_in_the_labels_inputs_are_there_once_and_labels_are_each_runs_own() -> None:
    one, two = (prepare(data(seed, label_noise=0.5)).train for seed in (1, 2))
    assert one.x.data_ptr() == two.x.data_ptr()
    assert not torch.equal(one.y, two.y)
    parts = [one, two, one]
    pool = Pool.of(parts, CPU)
    assert pool.x.data_ptr() == one.x.data_ptr()
    assert len(pool.y) == len(one.y) + len(two.y)
    x, y = pool.batch(pool.rows)
    for run, part in enumerate(parts):
        expected_x, expected_y = part[torch.arange(len(part))]
        assert torch.equal(x[run], expected_x)
        assert torch.equal(y[run], expected_y)


@pytest.mark.parametrize("changes", [{}, {"scale": "standard"}, {"scale": "standard", "label_noise": 0.2}])
def test_a_batch_is_of_each_runs_own_examples(changes: dict[str, object]) -> None:
    parts = [prepare(data(seed, **changes)).train for seed in (1, 2, 1)]
    pool = Pool.of(parts, CPU)
    order = torch.tensor([[3, 0, 7], [1, 1, 2], [0, 5, 4]])
    x, y = pool.batch(pool.rows.gather(1, order))
    for run, part in enumerate(parts):
        expected_x, expected_y = part[order[run]]
        assert torch.equal(x[run], expected_x)
        assert torch.equal(y[run], expected_y)
