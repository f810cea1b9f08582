"""int8: an ONNX file with weights of 8 bits, quantised after training by ONNX Runtime.

Static quantisation also rounds activations to 8 bits; their ranges are those of calibration examples (Jacob et al.
2018; Nagel et al. 2021, section 3). Dynamic quantisation needs no examples: it measures the range of the inputs of
each matrix product in every batch, and leaves convolutions as they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tombola.exports.examples import Examples, sample
from tombola.exports.onnx_file import OnnxModel, clean, read_onnx
from tombola.exports.torch_export import suppress_output
from tombola.utils.errors import InputError
from tombola.utils.files import atomic_write
from tombola.utils.libraries import require
from tombola.utils.model_inputs import Inputs, batch_size, call, rows, tensors
from tombola.utils.text import first_line

CALIBRATION_EXAMPLES = 512
"""The most examples that ranges are measured on; of more, so many at equal distances."""
CALIBRATION_BATCH = 64
MATRIX_PRODUCTS = ("Gemm", "MatMul")
PRODUCTS = ("Conv", "ConvTranspose", *MATRIX_PRODUCTS)
"""Operations that multiply by weights."""
BETWEEN = (
    *("Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Flatten", "Reshape"),
    *("Transpose", "Pad", "Slice", "Split", "Squeeze", "Unsqueeze"),
)
"""Operations that have kernels for 8 bits, so that activations stay in 8 bits between products."""


def quantise(
    path: str | Path,
    new: str | Path,
    example: Inputs,
    calibration: Examples | None = None,
    *,
    must_calibrate: bool = False,
) -> str:
    """Quantise the ONNX file `path` of `write_onnx`, write it to `new`, and return how it was done, in words.

    Statically if there are `calibration` examples; otherwise, or if ONNX Runtime cannot, dynamically. Weights are
    symmetric, with a scale for each output: zeros stay zero. They have 7 bits, since the sum of two products of 8
    bits saturates on x86 processors without VNNI. What layers read and convolutions return is unsigned; outputs of
    linear layers, such as class scores, are not rounded. Metadata are kept, and the same files and examples give the
    same bytes. The new file is run on `example`, a batch of inputs on the CPU. Raises `InputError` if nothing can be
    quantised, not statically though there are examples and it `must_calibrate`, or the extra `onnx` is missing.
    """
    for module in ("onnx", "onnxruntime", "onnxruntime.quantization"):
        require(module, "onnx")
    path, model = Path(path), read_onnx(path)
    why, how = "there are no calibration examples", ""
    if calibration is not None:
        try:
            content, how = _static(path, model, example, calibration)
        except InputError as error:
            if must_calibrate:
                raise InputError(f"calibration: {error}") from error
            why = f"static quantisation failed: {error}"
    if not how:
        content, how = _dynamic(path, model, example, why)
    with atomic_write(new) as temporary:
        temporary.write_bytes(content)
    return how


def _static(path: Path, model: OnnxModel, example: Inputs, calibration: Examples) -> tuple[bytes, str]:
    """Quantised with the ranges that activations have for these examples."""
    quantization = require("onnxruntime.quantization", "onnx")
    chosen = sample(calibration, CALIBRATION_EXAMPLES)

    class CalibrationReader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        """Gives the examples in batches."""

        batches = _batches(model, chosen.x)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    content = _quantised(
        quantization.quantize_static,
        *(path, model, example, [*PRODUCTS, *BETWEEN]),
        calibration_data_reader=CalibrationReader(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
    )
    return content, f"static quantisation, calibrated on {len(chosen):,} examples: {calibration.what}"


def _batches(model: OnnxModel, x: Inputs) -> Iterator[dict[str, Any]]:
    for begin in range(0, batch_size(x), CALIBRATION_BATCH):
        yield call(model.feed, rows(x, slice(begin, begin + CALIBRATION_BATCH)))


def _dynamic(path: Path, model: OnnxModel, example: Inputs, why: str) -> tuple[bytes, str]:
    """Products by constant matrices quantised, which needs no ranges."""
    onnx, quantization = require("onnx", "onnx"), require("onnxruntime.quantization", "onnx")
    graph = onnx.load(path).graph
    constants = {each.name for each in graph.initializer}
    if not any(node.op_type in MATRIX_PRODUCTS and constants & {*node.input} for node in graph.node):
        raise InputError(f"{why}, and without them only linear layers can be quantised, of which there are none")
    content = _quantised(quantization.quantize_dynamic, path, model, example, MATRIX_PRODUCTS)
    return content, f"dynamic quantisation of linear layers only: {why}"


def _quantised(
    quantize: Callable[..., None], path: Path, model: OnnxModel, example: Inputs, types: Sequence[str], **options: Any
) -> bytes:
    """The model with operations of these types quantised. Raises `InputError` if its outputs have other shapes."""
    quantization = require("onnxruntime.quantization", "onnx")
    with tempfile.TemporaryDirectory() as folder, suppress_output():
        made = Path(folder) / "int8.onnx"
        options |= {
            "op_types_to_quantize": list(types),
            "weight_type": quantization.QuantType.QInt8,
            "per_channel": True,
            "reduce_range": True,
            "extra_options": {
                "WeightSymmetric": True,
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": list(MATRIX_PRODUCTS),
            },
        }
        try:
            quantize(path, made, **options)
            content: bytes = clean(require("onnx", "onnx").load(made), model.about).SerializeToString(
                deterministic=True
            )
            read = OnnxModel(content)
        except Exception as error:  # ONNX Runtime may raise anything
            raise InputError(f"ONNX Runtime cannot quantise this network: {first_line(error)}") from error
    for batch in (rows(example, [0]), example):
        before, after = ([tensor.shape for tensor in tensors(call(each, batch))] for each in (model, read))
        if before != after:
            raise InputError(f"its outputs have the shapes {after} instead of {before}")
    return content
