from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.support.random_networks import sparsify
from tests.support.runtime_networks import program_for, programs
from tombola.exports.runtime.program import ARRAYS, MAX_NUMBER, Program, padded_batch
from tombola.kernels import inference as k
from tombola.kernels.inference import run
from tombola.utils.errors import DamagedFile

Array = np.ndarray[Any, Any]

LARGE = [2**15, 2**31 - 1, 2**31, 2**32, MAX_NUMBER, MAX_NUMBER + 1, 2**62, 2**63 - 1]


def other(rng: np.random.Generator, number: int, workspace: int) -> int:
    """A replacement for `number`: slightly different, small, about as large as the workspace, or huge."""
    large = int(rng.choice(LARGE))
    near, end = number + int(rng.choice([-16, -5, -1, 1, 2, 7, 31])), workspace - int(rng.integers(200))
    ways = [near, int(rng.integers(-4, 12)), int(rng.integers(-300, workspace)), end, large, -large - 1]
    return ways[rng.choice(len(ways), p=[0.5, 0.15, 0.15, 0.1, 0.05, 0.05])]


def damaged(rng: np.random.Generator) -> Program:
    """A program with up to three changes, most of which make it invalid."""
    program = programs()[rng.integers(len(programs()))]
    workspace = program.workspace
    for _ in range(rng.integers(1, 4)):
        kind = rng.choice(["table", "array", "size", "type", "shape"], p=[0.5, 0.3, 0.1, 0.02, 0.08])
        name = "table" if kind == "table" else str(rng.choice(sorted(ARRAYS)))
        array = program.arrays[name].copy()
        if kind == "shape":
            name = str(rng.choice(["inputs", "outputs", "workspace"]))
            shape = tuple(other(rng, 2, 9) for _ in range(rng.integers(4)))
            changed: Any = other(rng, workspace, workspace) if name == "workspace" else shape
        elif kind == "size":
            changed = array[: rng.integers(len(array) + 1)] if rng.integers(2) else np.concatenate([array, array[:3]])
        elif kind == "type":
            changed = array.astype(str(rng.choice(["int8", "int32", "int64", "float32", "float64", ">i8"])))
        else:
            if array.size and array.dtype.kind == "i":
                at, limits = rng.integers(array.size), np.iinfo(array.dtype)
                array.flat[at] = min(max(other(rng, int(array.flat[at]), workspace), limits.min), limits.max)
            changed = array
        program = dataclasses.replace(program, **{name: changed})
    return program


GUARD = 4096


def run_between(program: Program, n: int, guard: float) -> tuple[bytes, bytes]:
    """The bits of outputs and workspace after running `program` on arrays with guard numbers around them.

    Asserts that nothing was written to the guards. Numbers that were read there change the bits.
    """
    guarded: list[Array] = []

    def between(array: Array) -> Array:
        guarded.append(np.full(array.size + 2 * GUARD, guard, np.float32))
        inner = guarded[-1][GUARD:-GUARD].reshape(array.shape)
        inner[:] = array
        return inner

    rng = np.random.default_rng(0)
    x = between(rng.standard_normal((n + 1, math.prod(program.inputs)), np.float32))
    workspace = between(rng.standard_normal(program.workspace * n, np.float32))
    out = between(np.zeros((n + 1, len(program.places)), np.float32))
    floats = {name: between(array) for name, array in program.arrays.items() if array.dtype == np.float32}
    run(*(program.arrays | floats).values(), x.ctypes.data, x.shape[1], 0, n + 1, n, workspace, out)
    for around in guarded:
        outside = np.concatenate([around[:GUARD], around[-GUARD:]])
        assert (np.isnan(outside) if math.isnan(guard) else outside == guard).all()
    return out.tobytes(), workspace.tobytes()


def assert_stays_inside(program: Program) -> None:
    for n in (1, 16):
        assert run_between(program, n, math.nan) == run_between(program, n, 7.25)


def test_a_program_stays_in_its_workspace() -> None:
    for program in programs():
        program.check()
        assert_stays_inside(program)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_a_damaged_program_is_rejected_or_stays_in_its_workspace(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(50):
        program = damaged(rng)
        try:
            program.check()
        except DamagedFile:
            continue
        if program.workspace < 10_000:  # larger ones may be valid, but take too long
            assert_stays_inside(program)


def test_many_but_not_all_damaged_programs_are_rejected() -> None:
    """Otherwise the test above would test nothing."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(500):
        try:
            damaged(rng).check()
        except DamagedFile:
            found += 1
    assert 100 < found < 450


def step(kind: int, **fields: int) -> Program:
    """A program of images whose first step of that kind has other fields."""
    program = programs()[4 if kind == k.DENSE else 3]
    table = program.table.copy()
    row = int(np.flatnonzero(table[:, k.KIND] == kind)[0])
    for name, number in fields.items():
        table[row, getattr(k, name)] = number
    return dataclasses.replace(program, table=table)


def array(name: str, change: Any) -> Program:
    """A program of images with one array changed."""
    program = programs()[3]
    made = np.asarray(change(program.arrays[name].copy()))
    return dataclasses.replace(program, **{name: made.astype(ARRAYS[name]) if made.dtype == object else made})


def put(at: Any, number: Any) -> Any:
    def change(array: Array) -> Array:
        array[at] = number
        return array

    return change


def program_with_overflowing_bounds() -> Program:
    """A program whose bounds would increase if differences were computed in 32 bits."""
    program = programs()[3]
    table, bounds = program.table.copy(), program.bounds.copy()
    row = next(row for row, step in enumerate(table) if step[k.KIND] == k.SPARSE and step[k.ROWS] >= 5)
    first = table[row, k.BOUND]
    bounds[first : first + 5] = [0, 2**31 - 1, -(2**31), -1, 0]
    return dataclasses.replace(program, bounds=bounds)


MISTAKES = {
    "not positive or too large": [
        dataclasses.replace(programs()[0], workspace=0),
        dataclasses.replace(programs()[0], inputs=(5, 0)),
        dataclasses.replace(programs()[0], outputs=(MAX_NUMBER + 1,)),
        dataclasses.replace(programs()[3], workspace=2**27),
    ],
    "an invalid type": [
        array("values", lambda values: values.astype(np.float64)),
        array("bounds", lambda bounds: bounds.astype(">i4")),
        array("table", lambda table: np.asfortranarray(table)),
        array("table", lambda table: table[0]),
        array("runs", lambda runs: runs[None]),
        array("places", lambda places: places[:, None]),
    ],
    "numbers that are too large": [
        step(k.SPARSE, IN=-(2**63)),  # its absolute value overflows
        step(k.SPARSE, OUT_PLANE=MAX_NUMBER + 1),
        array("places", put(0, 2**63 - 1)),  # adding one overflows
        array("runs", put((0, 1), -(2**63))),
    ],
    "number of columns or rows": [
        array("table", lambda table: np.ascontiguousarray(table[:, 1:])),
        array("runs", lambda runs: np.ascontiguousarray(runs[:, 1:])),
        array("runs", lambda runs: runs[:0]),
    ],
    "do not match the number of inputs or outputs": [
        array("places", lambda places: places[1:]),
        array("runs", lambda runs: runs[1:]),
        array("runs", put((0, 2), -2)),
        dataclasses.replace(programs()[3], inputs=(2, 6, MAX_NUMBER)),
    ],
    "does not begin": [
        step(k.INPUT, KIND=k.MAX_POOL),
        step(k.SPARSE, KIND=k.INPUT),
        step(k.INPUT, ROWS=2**20),
        array("table", lambda table: table[1:]),
        array("table", lambda table: table[:0]),
    ],
    "too many axes": [dataclasses.replace(programs()[3], inputs=(*[1] * 80, *programs()[3].inputs))],
    "inputs or outputs of the program lie outside": [
        array("places", put(0, -1)),
        array("places", put(0, programs()[3].workspace)),
        array("runs", put((0, 0), -1)),
        array("runs", put((0, 1), -1)),
        array("runs", put((slice(2), 2), np.array([-1, 11]))),
        array("runs", put((-1, 1), programs()[3].workspace)),
    ],
    "sizes that are not positive": [
        step(k.SPARSE, ROWS=0),
        step(k.SPARSE, STRIDE_H=-1),
        step(k.SPARSE, IN_LINE=-1),
        step(k.SPARSE, PAD_TOP=-1),
        step(k.MAX_POOL, DILATION_H=0),
    ],
    "lines or channels of another size": [
        step(k.SPARSE, OUT_LINE=2),
        step(k.SPARSE, OUT_PLANE=1),
        step(k.SPARSE, PAD_LEFT=3),
        step(k.SPARSE, PAD_BOTTOM=9),
        step(k.INPUT, PAD_TOP=0),
    ],
    "writes outside": [
        step(k.SPARSE, OUT=0),
        step(k.SPARSE, OUT=programs()[3].workspace - 9),
        step(k.MAX_POOL, ROWS=900),
    ],
    "an unknown kind": [step(k.SPARSE, KIND=4), step(k.SPARSE, KIND=-1)],
    "biases outside": [step(k.SPARSE, BIAS=-1), step(k.SPARSE, BIAS=len(programs()[3].biases) - 2)],
    "adds numbers outside": [
        step(k.SPARSE, ADDEND=-2),
        step(k.SPARSE, ADDEND=programs()[3].workspace - 4),
        step(k.SPARSE, ADDEND=0, ADDEND_LINE=50_000),
        step(k.DENSE, ADDEND=0, ADDEND_PLANE=50_000),
    ],
    "weights outside": [
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
        program_with_overflowing_bounds(),
        array("values", lambda values: values[:-1]),
        array("columns", lambda columns: columns[:-1]),
    ],
    "reads outside": [
        step(k.SPARSE, IN=-1000),
        step(k.SPARSE, IN=programs()[3].workspace - 20),
        step(k.SPARSE, STRIDE_H=1000),
        step(k.SPARSE, STRIDE_W=500),
        step(k.DENSE, IN=-1),
        array("columns", put(0, 2**31 - 1)),
        array("columns", put(0, -(2**31))),
    ],
    "pools images without pixels": [step(k.MAX_POOL, IN_HEIGHT=0), step(k.MAX_POOL, INNER=-1)],
    "pools pixels outside the image": [step(k.MAX_POOL, STRIDE_H=40), step(k.MAX_POOL, IN_WIDTH=1)],
    "pools pixels outside the workspace": [
        step(k.MAX_POOL, IN=-50),
        step(k.MAX_POOL, IN=programs()[3].workspace),
        step(k.MAX_POOL, IN_HEIGHT=500),
        step(k.MAX_POOL, INNER=2**30),
    ],
    "another size than its steps": [dataclasses.replace(programs()[0], workspace=programs()[0].workspace + 1)],
}


@pytest.mark.parametrize("words", MISTAKES)
def test_an_error_says_what_is_wrong(words: str) -> None:
    for program in MISTAKES[words]:
        with pytest.raises(DamagedFile, match=words):
            program.check()


def test_multiply_adds_count_kept_weights_and_all_of_dense_layers() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 4))
    sparsify(network, 0.4, seed=0)
    example = torch.ones(1, 1, 5, 5)
    conv, linear = (int(network[layer].weight.count_nonzero()) for layer in (0, 3))
    assert program_for(network, example).multiply_adds == 9 * conv + linear
    assert program_for(network, example, {0}).multiply_adds == 9 * 18 + linear
    assert program_for(network, example, True).multiply_adds == 9 * 18 + 72
    for without in (nn.MaxPool2d(2), nn.Flatten()):
        assert program_for(without, example).multiply_adds == 0


def test_blocks_of_images_are_smaller_than_those_of_features() -> None:
    flat, *_, images = programs()
    assert (flat.block_size, images.block_size) == (64, 16)


@pytest.mark.parametrize(("images", "padded"), [(1, 1), (2, 16), (16, 16), (17, 32), (64, 64), (65, 80)])
def test_batches_are_padded_to_whole_vectors(images: int, padded: int) -> None:
    assert padded_batch(images) == padded
