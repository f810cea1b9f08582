"""The machine code of the products, for processors that are not here."""

from __future__ import annotations

import re
from typing import Any

import numba
import numpy as np
import pytest
from llvmlite import binding
from numba import types

from tombola.kernels import products, tiles
from tombola.kernels.tiles import AVX2, AVX512, NEON, TileSizes, tile_sizes

FLOATS, INDICES, WHOLE = types.float32[::1], types.int32[::1], types.intp
STREAM = FLOATS, WHOLE, WHOLE, WHOLE, WHOLE
RESULT = FLOATS, WHOLE, WHOLE, WHOLE, FLOATS, WHOLE, WHOLE, FLOATS, WHOLE, WHOLE, WHOLE
SIGNATURES = {
    "sparse_product": (FLOATS, INDICES, INDICES, WHOLE, FLOATS, types.float32, *STREAM, *RESULT),
    "dense_product": (
        *(FLOATS, WHOLE, WHOLE, INDICES, INDICES, WHOLE, FLOATS, types.float32),
        *(*STREAM, *RESULT),
    ),
    "sampled_product": (INDICES, INDICES, WHOLE, FLOATS, WHOLE, WHOLE, WHOLE, *STREAM, FLOATS),
}


@pytest.mark.parametrize(
    ("features", "expected"),
    [("+avx2,+fma,+avx512f", AVX512), ("+avx2,-avx512f", AVX2), ("+neon,+fp-armv8", NEON), ("", AVX2)],
)
def test_tiles_fit_the_registers(features: str, expected: Any) -> None:
    assert tile_sizes(features) == expected


def compiled_with(sizes: TileSizes, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A kernel, compiled now, with other tiles than those of this machine."""
    monkeypatch.setattr(tiles, "SIZES", sizes)
    for module in (tiles, products):
        monkeypatch.setattr(module, "SPARSE_TILES", sizes.sparse)
        monkeypatch.setattr(module, "DENSE_ROWS", sizes.dense_rows)
        monkeypatch.setattr(module, "DENSE_TILES", sizes.dense)
    return numba.njit(SIGNATURES[name], nogil=True, error_model="numpy")(getattr(products, name).py_func)


@pytest.mark.parametrize("sizes", [AVX512, AVX2, NEON])
def test_bits_do_not_depend_on_the_tiles(sizes: TileSizes, monkeypatch: pytest.MonkeyPatch) -> None:
    random, rows, inner, vectors = np.random.default_rng(0), 17, 150, 13
    pitch = 16 * vectors
    source, left, out = (random.standard_normal(count * pitch, np.float32) for count in (inner, rows, rows))
    matrix, biases = random.standard_normal(rows * inner, np.float32), random.standard_normal(rows, np.float32)
    kept = random.random((rows, inner)) < 0.3
    columns, bounds = np.nonzero(kept)[1].astype(np.int32), np.cumsum([0, *kept.sum(axis=1)]).astype(np.int32)
    numbers, stream = np.arange(inner, dtype=np.int32), (source, 0, pitch, 16, vectors)
    result = out, 0, pitch, 16, left, pitch, 0, left, 0, pitch, 16
    arguments = {
        "sparse_product": (matrix, columns, bounds, rows, biases, np.float32(0), *stream, *result),
        "dense_product": (matrix, 0, inner, numbers, numbers, rows, biases, np.float32(0), *stream, *result),
        "sampled_product": (columns, bounds, rows, left, 0, pitch, 16, *stream, np.zeros(columns.size, np.float32)),
    }
    for name, of in arguments.items():
        written = of[-1] if name == "sampled_product" else out
        found = []
        for kernel in (getattr(products, name), compiled_with(sizes, name, monkeypatch)):
            written[:] = 0
            kernel(*of)
            found.append(written.copy())
        assert found[0].any()
        assert np.array_equal(*found), name


@pytest.mark.parametrize("name", SIGNATURES)
@pytest.mark.parametrize("triple", ["aarch64-unknown-linux-gnu", "arm64-apple-darwin"])
def test_inner_loops_use_the_vectors_of_arm(name: str, triple: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = compiled_with(NEON, name, monkeypatch)
    (code,) = kernel.inspect_llvm().values()
    assembly = assembly_of(code, triple)
    assert len(re.findall(r"\bfmla(\.4s)?\s+v", assembly)) >= 24
    assert not re.search(r"\bbl\s+_?fmaf?\b", assembly)  # no calls for single numbers


def assembly_of(code: str, triple: str) -> str:
    """The assembly of LLVM's code for another processor."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple(triple).create_target_machine(opt=3)
    code = re.sub(r"^target .*$", "", code, flags=re.MULTILINE)
    # numba counts references to arrays by an instruction of x86, which is no part of the inner loops.
    code = re.sub(r"= (tail )?call i8 @llvm\.x86\.atomic\.sub\.cc.*", "= add i8 0, 0", code)
    assert not re.search(r"call .*@llvm\.x86\.", code)  # LLVM would end the process
    module = binding.parse_assembly(code)
    module.triple, module.data_layout = triple, str(machine.target_data)
    return str(machine.emit_assembly(module))
