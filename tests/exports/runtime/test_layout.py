from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from tests.exports.networks import Residual
from tests.exports.runtime.helpers import Sum, compiled, plannable, planned
from tombola.exports.runtime import kernels as k
from tombola.exports.runtime.kernels import Table
from tombola.exports.runtime.layout import ImageSlot, dense_products, program_of
from tombola.exports.runtime.plan import Image

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # torch's, of even kernels


def test_a_place_knows_its_pixels_and_the_zeros_around_them() -> None:
    place = ImageSlot(Image(2, 3, 4, [1, 2, 3, 1]), 100)
    assert (place.line, place.plane, place.end) == (8, 48, 196)
    assert place.at() == 100 + 8 + 3
    assert place.at(1, 2, 3) == 100 + 48 + 3 * 8 + 6
    assert place.at(0, -1, -3) == 100
    pixels = place.pixels.reshape(2, 3, 4)
    assert [pixels[c, y, x] for c, y, x in ((0, 0, 0), (1, 2, 3))] == [place.at(), place.at(1, 2, 3)]
    assert len(np.unique(pixels)) == 24


@settings(deadline=None, max_examples=40)
@given(plannable())
def test_programs_of_one_plan_are_sound_and_lie_alike(made: tuple[nn.Module, Tensor]) -> None:
    plan = planned(*made)
    sparse, dense, again = program_of(plan), program_of(plan, dense_products(plan).keys()), program_of(plan)
    for program in (sparse, dense):
        program.check()
        assert np.array_equal(program.runs, sparse.runs)
        assert np.array_equal(program.places, sparse.places)
        assert program.room == sparse.room
    for name, array in sparse.arrays.items():
        assert array.tobytes() == again.arrays[name].tobytes()
    where = [k.OUT, k.OUT_PLANE, k.OUT_LINE, k.IN, k.IN_PLANE, k.IN_LINE, k.PLUS, k.PLUS_PLANE, k.PLUS_LINE]
    assert np.array_equal(sparse.table[:, where], dense.table[:, where])


@settings(deadline=None, max_examples=40)
@given(plannable())
def test_no_step_writes_over_what_is_read_later(made: tuple[nn.Module, Tensor]) -> None:
    """Goes through the steps and keeps whose each number of the room is."""
    plan = planned(*made)
    program = program_of(plan)
    owner = np.full(program.room, -1)
    numbers: dict[Image, int] = {}
    pixels: dict[Image, list[Table]] = {}
    for row, step in enumerate(program.table):
        out = plan.inputs
        if row:
            work = plan.work[row - 1]
            out = work.out
            for image in (work.source, getattr(work, "plus", None)):
                if image is not None:
                    assert all((owner[each] == numbers[image]).all() for each in pixels[image])
        channel, y, x = np.indices(step[[k.ROWS, k.HEIGHT, k.WIDTH]])
        own = step[k.OUT] + channel * step[k.OUT_PLANE] + y * step[k.OUT_LINE] + x
        begin = step[k.OUT] - step[k.TOP] * step[k.OUT_LINE] - step[k.LEFT]
        owner[begin : begin + step[k.ROWS] * step[k.OUT_PLANE]] = numbers.setdefault(out, row)
        pixels.setdefault(out, []).append(own)
    assert (owner[program.places] == numbers[plan.outputs]).all()


def test_room_is_used_again() -> None:
    layers = [layer for _ in range(9) for layer in (nn.Linear(50, 50), nn.ReLU())]
    assert compiled(nn.Sequential(*layers), torch.ones(1, 50)).room == 100


def test_what_a_shortcut_reads_later_keeps_its_room() -> None:
    body = nn.Sequential(*[nn.Linear(50, 50) for _ in range(9)])
    assert compiled(Residual(body, nn.Identity()), torch.ones(1, 50)).room == 150


def test_lines_are_as_long_as_those_they_are_computed_of() -> None:
    """So that one image is computed in one stream; a stride makes that impossible anyway."""
    first, strided = nn.Conv2d(1, 2, 3, padding=2), nn.Conv2d(2, 2, 3, 2)
    table = compiled(nn.Sequential(first, nn.ReLU(), strided), torch.ones(1, 1, 6, 6)).table
    assert table[1, k.IN_LINE] == table[1, k.OUT_LINE] == 10
    assert (table[2, k.IN_LINE], table[2, k.OUT_LINE]) == (10, 3)


def test_images_are_laid_in_by_runs_of_their_lines() -> None:
    padded = compiled(nn.Conv2d(2, 1, 3, padding=1), torch.ones(1, 2, 3, 4))
    assert padded.runs.tolist() == [[4 * line, 6 * (1 + line + 2 * (line > 2)) + 1, 4] for line in range(6)]
    assert compiled(nn.Conv2d(2, 1, 3), torch.ones(1, 2, 3, 4)).runs.tolist() == [[0, 0, 24]]


@pytest.mark.parametrize("dense", [False, True])
def test_a_program_has_the_weights_left_or_all_of_them(dense: bool) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 4))
    with torch.no_grad():
        network[0].weight[1] = 0
        network[2].weight[:, 3:] = 0
    program = compiled(network, torch.ones(1, 2, 4, 4), dense)
    assert len(program.values) == (54 + 48 if dense else 36 + 12)
    assert len(program.columns) == (18 + 12 if dense else 36 + 12)  # rows of dense layers share theirs
    assert len(program.biases) == 7
    assert program.bounds.tolist() == ([] if dense else [0, 18, 18, 36, 36, 39, 42, 45, 48])


def test_only_whole_kernels_with_weights_can_be_dense() -> None:
    empty = nn.Conv2d(2, 2, 1)
    torch.nn.init.zeros_(empty.weight)
    network = nn.Sequential(nn.ReLU(), nn.Conv2d(2, 2, 3, groups=2), Sum(empty), nn.Flatten(), nn.Linear(8, 2))
    plan = planned(network, torch.ones(1, 2, 4, 4))
    (last,) = dense_products(plan)
    assert last == len(plan.work) - 1
