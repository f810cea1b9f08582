from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.exports.networks import Concatenated, Residual, randomise, sparsify
from tests.exports.runtime.helpers import compiled
from tombola.exports.runtime import kernels as k
from tombola.exports.runtime.kernels import run
from tombola.exports.runtime.program import ARRAYS, MOST, Program, whole
from tombola.utils.errors import DamagedFile

Array = np.ndarray[Any, Any]


@functools.cache
def programs() -> list[Program]:
    """Of linear layers and of images, with every kind of step, sparse and dense."""
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    branches = Concatenated(nn.Conv2d(3, 2, (1, 3), padding=(0, 1)), nn.MaxPool2d(3, 1, 1))
    images = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), Residual(body, nn.Identity()), branches, nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.ReLU(), nn.Conv2d(8, 4, 2, 2, dilation=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    made = []
    for network, example in ((mlp, torch.ones(1, 5)), (images, torch.ones(1, 2, 6, 5))):
        sparsify(randomise(network), 0.5, seed=1)
        made += [compiled(network, example, dense) for dense in (False, True, {0, 4})]
    return made


LARGE = [2**15, 2**31 - 1, 2**31, 2**32, MOST, MOST + 1, 2**62, 2**63 - 1]


def other(rng: np.random.Generator, number: int, room: int) -> int:
    """A number in the place of `number`: a little more or less, any small one, one about as large as the room, or a
    huge one."""
    large = int(rng.choice(LARGE))
    near, end = number + int(rng.choice([-16, -5, -1, 1, 2, 7, 31])), room - int(rng.integers(200))
    ways = [near, int(rng.integers(-4, 12)), int(rng.integers(-300, room)), end, large, -large - 1]
    return ways[rng.choice(len(ways), p=[0.5, 0.15, 0.15, 0.1, 0.05, 0.05])]


def damaged(rng: np.random.Generator) -> Program:
    """A program of which up to three things are wrong, or different at least."""
    program = programs()[rng.integers(len(programs()))]
    room = program.room
    for _ in range(rng.integers(1, 4)):
        kind = rng.choice(["table", "array", "size", "type", "shape"], p=[0.5, 0.3, 0.1, 0.02, 0.08])
        name = "table" if kind == "table" else str(rng.choice(sorted(ARRAYS)))
        array = program.arrays[name].copy()
        if kind == "shape":
            name = str(rng.choice(["inputs", "outputs", "room"]))
            shape = tuple(other(rng, 2, 9) for _ in range(rng.integers(4)))
            changed: Any = other(rng, room, room) if name == "room" else shape
        elif kind == "size":
            changed = array[: rng.integers(len(array) + 1)] if rng.integers(2) else np.concatenate([array, array[:3]])
        elif kind == "type":
            changed = array.astype(str(rng.choice(["int8", "int32", "int64", "float32", "float64", ">i8"])))
        else:
            if array.size and array.dtype.kind == "i":
                at, limits = rng.integers(array.size), np.iinfo(array.dtype)
                array.flat[at] = min(max(other(rng, int(array.flat[at]), room), limits.min), limits.max)
            changed = array
        program = dataclasses.replace(program, **{name: changed})
    return program


GUARD = 4096


def run_between(program: Program, n: int, guard: float) -> tuple[bytes, bytes]:
    """Bits of the answers and of the room after running `program` on arrays with guards of that number around them.

    Nothing may have been written there. What is read there shows in the bits.
    """
    guarded: list[Array] = []

    def between(array: Array) -> Array:
        guarded.append(np.full(array.size + 2 * GUARD, guard, np.float32))
        inner = guarded[-1][GUARD:-GUARD].reshape(array.shape)
        inner[:] = array
        return inner

    rng = np.random.default_rng(0)
    x = between(rng.standard_normal((n + 1, math.prod(program.inputs)), np.float32))
    room = between(rng.standard_normal(program.room * n, np.float32))
    out = between(np.zeros((n + 1, len(program.places)), np.float32))
    floats = {name: between(array) for name, array in program.arrays.items() if array.dtype == np.float32}
    run(*(program.arrays | floats).values(), x, 0, n + 1, n, room, out)
    for around in guarded:
        outside = np.concatenate([around[:GUARD], around[-GUARD:]])
        assert (np.isnan(outside) if math.isnan(guard) else outside == guard).all()
    return out.tobytes(), room.tobytes()


def stays_inside(program: Program) -> None:
    for n in (1, 16):
        assert run_between(program, n, math.nan) == run_between(program, n, 7.25)


def test_a_program_of_a_network_stays_in_its_room() -> None:
    for program in programs():
        program.check()
        stays_inside(program)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_a_damaged_program_is_found_out_or_stays_in_its_room(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(50):
        program = damaged(rng)
        try:
            program.check()
        except DamagedFile:
            continue
        if program.room < 10_000:  # what is huge everywhere is right, and takes too long
            stays_inside(program)


def test_damage_is_found_out_often_but_not_always() -> None:
    """So that the test above tests something."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(500):
        try:
            damaged(rng).check()
        except DamagedFile:
            found += 1
    assert 100 < found < 450


def step(kind: int, **fields: int) -> Program:
    """A program of images with other fields in its first step of that kind."""
    program = programs()[4 if kind == k.DENSE else 3]
    table = program.table.copy()
    row = int(np.flatnonzero(table[:, k.KIND] == kind)[0])
    for name, number in fields.items():
        table[row, k.FIELDS.index(name)] = number
    return dataclasses.replace(program, table=table)


def array(name: str, change: Any) -> Program:
    """The same with other numbers in an array, those that `change` makes of it."""
    program = programs()[3]
    made = np.asarray(change(program.arrays[name].copy()))
    return dataclasses.replace(program, **{name: made.astype(ARRAYS[name]) if made.dtype == object else made})


def put(at: Any, number: Any) -> Any:
    def change(array: Array) -> Array:
        array[at] = number
        return array

    return change


def step_with_wraps() -> Program:
    """A program with bounds that never fall if differences are taken in 32 bits, and end where they should."""
    program = programs()[3]
    table, bounds = program.table.copy(), program.bounds.copy()
    row = next(row for row, step in enumerate(table) if step[k.KIND] == k.SPARSE and step[k.ROWS] >= 5)
    first = table[row, k.BOUND]
    bounds[first : first + 5] = [0, 2**31 - 1, -(2**31), -1, 0]
    return dataclasses.replace(program, bounds=bounds)


MISTAKES = {
    "shape of the program": [
        dataclasses.replace(programs()[0], room=0),
        dataclasses.replace(programs()[0], inputs=(5, 0)),
        dataclasses.replace(programs()[0], outputs=(-3,)),
        dataclasses.replace(programs()[0], outputs=(MOST + 1,)),
    ],
    "not of the right kind": [
        array("values", lambda values: values.astype(np.float64)),
        array("columns", lambda columns: columns.astype(np.int64)),
        array("bounds", lambda bounds: bounds.astype(">i4")),
        array("table", lambda table: table.astype(np.float64)),
        array("table", lambda table: np.asfortranarray(table)),
        array("table", lambda table: table[0]),
        array("runs", lambda runs: runs[None]),
        array("places", lambda places: places[:, None]),
    ],
    "numbers beyond reason": [
        step(k.SPARSE, IN=-(2**63)),  # has no absolute value
        step(k.SPARSE, OUT_PLANE=MOST + 1),
        array("places", put(0, 2**63 - 1)),  # one more is negative
        array("runs", put((0, 1), -(2**63))),
    ],
    "other columns": [
        array("table", lambda table: np.ascontiguousarray(table[:, 1:])),
        array("runs", lambda runs: np.ascontiguousarray(runs[:, 1:])),
        array("runs", lambda runs: runs[:0]),
    ],
    "more or fewer": [
        array("places", lambda places: places[1:]),
        array("runs", lambda runs: runs[1:]),
        array("runs", put((0, 2), -2)),
        dataclasses.replace(programs()[3], inputs=(2, 6, MOST)),
    ],
    "does not begin": [
        step(k.INPUT, KIND=k.LARGEST),
        step(k.SPARSE, KIND=k.INPUT),
        step(k.INPUT, ROWS=2**20),
        array("table", lambda table: table[1:]),
        array("table", lambda table: table[:0]),
    ],
    "beyond reason": [
        dataclasses.replace(programs()[3], room=2**27),
        dataclasses.replace(programs()[3], inputs=(*[1] * 80, *programs()[3].inputs)),
    ],
    "inputs or outputs": [
        array("places", put(0, -1)),
        array("places", put(0, programs()[3].room)),
        array("runs", put((0, 0), -1)),
        array("runs", put((0, 1), -1)),
        array("runs", put((slice(2), 2), np.array([-1, 11]))),
        array("runs", put((-1, 1), programs()[3].room)),
    ],
    "sizes that are not positive": [
        step(k.SPARSE, ROWS=0),
        step(k.SPARSE, DOWN=-1),
        step(k.SPARSE, IN_LINE=-1),
        step(k.SPARSE, TOP=-1),
        step(k.LARGEST, DILATE_H=0),
    ],
    "lines or channels of another size": [
        step(k.SPARSE, OUT_LINE=2),
        step(k.SPARSE, OUT_LINE=50),
        step(k.SPARSE, OUT_PLANE=1),
        step(k.SPARSE, LEFT=3),
        step(k.SPARSE, BELOW=9),
        step(k.INPUT, TOP=0),
    ],
    "writes outside": [step(k.SPARSE, OUT=0), step(k.SPARSE, OUT=programs()[3].room - 9), step(k.LARGEST, ROWS=900)],
    "no known kind": [step(k.SPARSE, KIND=4), step(k.SPARSE, KIND=-1)],
    "no biases": [step(k.SPARSE, BIAS=-1), step(k.SPARSE, BIAS=len(programs()[3].biases) - 2)],
    "adds what is outside": [
        step(k.SPARSE, PLUS=-2),
        step(k.SPARSE, PLUS=programs()[3].room - 4),
        step(k.SPARSE, PLUS=0, PLUS_LINE=50_000),
        step(k.DENSE, PLUS=0, PLUS_PLANE=50_000),
    ],
    "weights that are not there": [
        step(k.SPARSE, BOUND=-1),
        step(k.SPARSE, BOUND=len(programs()[3].bounds) - 3),
        step(k.DENSE, FIRST=-1),
        step(k.DENSE, FIRST=len(programs()[4].values)),
        step(k.DENSE, INNER=-18),
        step(k.DENSE, BOUND=-1),
        step(k.DENSE, BOUND=len(programs()[4].columns)),
        step(k.DENSE, INNER=18_000),
        array("bounds", put(0, -1)),
        array("bounds", put(1, 2**31 - 1)),
        step_with_wraps(),
        array("values", lambda values: values[:-1]),
        array("columns", lambda columns: columns[:-1]),
    ],
    "reads outside": [
        step(k.SPARSE, IN=-1000),
        step(k.SPARSE, IN=programs()[3].room - 20),
        step(k.SPARSE, DOWN=1000),
        step(k.SPARSE, ACROSS=500),
        step(k.DENSE, IN=-1),
        array("columns", put(0, 2**31 - 1)),
        array("columns", put(0, -(2**31))),
    ],
    "pools images of no size": [step(k.LARGEST, IN_HEIGHT=0), step(k.LARGEST, INNER=-1)],
    "pools what is outside the image": [step(k.LARGEST, DOWN=40), step(k.LARGEST, IN_WIDTH=1)],
    "pools what is outside the room": [
        step(k.LARGEST, IN=-50),
        step(k.LARGEST, IN=programs()[3].room),
        step(k.LARGEST, IN_HEIGHT=500),
        step(k.LARGEST, INNER=2**30),
    ],
    "room of another size": [dataclasses.replace(programs()[0], room=programs()[0].room + 1)],
}


@pytest.mark.parametrize("words", MISTAKES)
def test_what_is_wrong_is_said(words: str) -> None:
    for program in MISTAKES[words]:
        with pytest.raises(DamagedFile, match=words):
            program.check()


def test_work_counts_multiply_adds_of_the_weights_left_and_of_dense_layers() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 4))
    sparsify(network, 0.4, seed=0)
    example = torch.ones(1, 1, 5, 5)
    conv, linear = (int(network[layer].weight.count_nonzero()) for layer in (0, 3))
    assert compiled(network, example).work == 9 * conv + linear
    assert compiled(network, example, {0}).work == 9 * 18 + linear
    assert compiled(network, example, True).work == 9 * 18 + 72


def test_the_largest_of_nothing_is_no_work() -> None:
    pooled = compiled(nn.MaxPool2d(2), torch.ones(1, 1, 4, 4))
    assert pooled.work == 0
    assert compiled(nn.Flatten(), torch.ones(1, 1, 4, 4)).work == 0


def test_images_are_worked_on_fewer_at_a_time() -> None:
    flat, *_, images = programs()
    assert (flat.together, images.together) == (64, 16)


def test_bytes_are_those_of_the_arrays() -> None:
    program = programs()[0]
    weights, biases, rows = len(program.values), 10, 10 + 2
    table, runs = 3 * 8 * len(k.FIELDS), 3 * 8
    assert program.bytes == 8 * weights + 4 * biases + 4 * rows + table + runs + 3 * 8


@pytest.mark.parametrize(("images", "so_many"), [(1, 1), (2, 16), (16, 16), (17, 32), (64, 64), (65, 80)])
def test_one_image_or_whole_vectors_of_them(images: int, so_many: int) -> None:
    assert whole(images) == so_many
