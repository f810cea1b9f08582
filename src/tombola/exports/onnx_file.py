"""ONNX: a network in one file that other runtimes read, checked in ONNX Runtime before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram

from tombola.exports.torch_export import exported, largest_difference, on_cpu, suppress_output
from tombola.utils.errors import InputError
from tombola.utils.files import atomic_write
from tombola.utils.libraries import require
from tombola.utils.model_inputs import Inputs, call_checked, tensors
from tombola.utils.text import first_line

MIN_TORCH = "2.7"
"""The oldest torch whose exporter can write batch norm with a current onnxscript."""
MAX_BYTES = 2**31 - 1
"""The most bytes that a file of protocol buffers can have."""


def write_onnx(
    network: nn.Module, example: Inputs, path: str | Path, about: Mapping[str, str] | None = None
) -> float:
    """Write what `network` computes in eval mode to the ONNX file `path`, for batches of any size.

    `example` is a batch of inputs on the CPU, numbers as float32: a tensor, a tuple of positional arguments, or a
    dict of keyword arguments. The file's input is `input`, its output `output`, the first axis of both `batch`.
    Several inputs have the names of the parameters of the forward pass; several outputs their names in a dict, or
    `output_0` and so on. Arguments that are not tensors are constants. Weights are inside, zeros included; `about`
    becomes the model's metadata. The same network gives the same bytes. The outputs of ONNX Runtime are compared with
    PyTorch's; the largest absolute difference is returned. Raises `InputError` if torch cannot export the network, if
    outputs differ by more than `agreement.TOLERANCE` of the largest (then nothing is written), or the extra `onnx`
    or torch 2.7 is missing.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        require(module, "onnx")
    if torch.__version__ < MIN_TORCH:
        raise InputError(f"writing ONNX files needs torch {MIN_TORCH} or newer; this is {torch.__version__}")
    model = on_cpu(network)
    program = exported(model, example)
    inputs, outputs = _names(program, example, call_checked(model, example))
    try:
        with suppress_output():
            made = torch.onnx.export(
                program, (), dynamo=True, input_names=inputs, output_names=outputs, verbose=False
            )
        assert made is not None  # only the older exporter returns None
        proto = made.model_proto
    except Exception as error:
        raise InputError(f"torch cannot write this network as ONNX: {first_line(_root_cause(error))}") from error
    if proto.ByteSize() > MAX_BYTES:
        raise InputError(f"this network needs {proto.ByteSize():,} bytes; an ONNX file has at most {MAX_BYTES:,}")
    content = clean(proto, about or {}).SerializeToString(deterministic=True)
    difference = largest_difference(model, OnnxModel(content), example, "ONNX Runtime")
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    return difference


class OnnxModel:
    """A network in ONNX Runtime: takes tensors on the CPU as the network does that it was made of, and returns its
    output, or all outputs by name. `about` is its metadata."""

    def __init__(self, content: bytes, threads: int = 1) -> None:
        runtime = require("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors, which are raised
        self._session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._inputs = [each.name for each in self._session.get_inputs()]
        self._outputs = [each.name for each in self._session.get_outputs()]
        self.about: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """The outputs for a batch of any size."""
        found = self._session.run(None, self.feed(*inputs, **named))
        outputs = {name: torch.from_numpy(each) for name, each in zip(self._outputs, found, strict=True)}
        return outputs if len(outputs) > 1 else outputs[self._outputs[0]]

    def feed(self, *inputs: Any, **named: Any) -> dict[str, NDArray[Any]]:
        """A batch by the names of inputs in the file, as ONNX Runtime takes it."""
        given = dict(zip(self._inputs, tensors(inputs), strict=False))
        for name, value in named.items():
            ours = [name] if name in self._inputs else [each for each in self._inputs if each not in given]
            given |= dict(zip(ours, tensors(value), strict=False))
        return {name: tensor.numpy() for name, tensor in given.items()}


def read_onnx(path: str | Path, threads: int = 1) -> OnnxModel:
    """The network in an ONNX file. Raises `InputError` if it is damaged, or it or the extra `onnx` is missing."""
    require("onnxruntime", "onnx")
    try:
        return OnnxModel(Path(path).read_bytes(), threads)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # the runtime may raise anything
        raise InputError(f"{path} is damaged or not an ONNX model: {first_line(error)}") from error


def initializer_bytes(path: str | Path) -> int:
    """Bytes of the weights and other constants of an ONNX file. Raises `InputError` like `read_onnx`."""
    onnx, helper = require("onnx", "onnx"), require("onnx.numpy_helper", "onnx")
    try:
        return sum(helper.to_array(each).nbytes for each in onnx.load(Path(path)).graph.initializer)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # protocol buffers may raise anything
        raise InputError(f"{path} is damaged or not an ONNX model: {first_line(error)}") from error


def _root_cause(error: BaseException) -> Exception:
    """The cause of `error`: torch wraps it in advice on how to report it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error if isinstance(error, Exception) else Exception(str(error))


def _names(program: ExportedProgram, example: Inputs, outputs: Any) -> tuple[list[str], list[str]]:
    """The names of the inputs and of the outputs in the file."""
    inputs = [name for name in program.graph_signature.user_inputs if isinstance(name, str)]
    if isinstance(example, Tensor):
        inputs = ["input"]
    count = len([*tensors(outputs)])
    if count == 1:
        return inputs, ["output"]
    named = [name for name, value in outputs.items() if value is not None] if isinstance(outputs, Mapping) else []
    if len(named) != count or set(named) & set(inputs):
        named = [f"output_{number}" for number in range(count)]
    return inputs, named


def clean(proto: Any, about: Mapping[str, str]) -> Any:
    """Name the batch axis, set the producer, and remove the paths and stack traces that torch records."""
    graph = proto.graph
    symbols = {dim.dim_param for value in graph.input for dim in value.type.tensor_type.shape.dim if dim.dim_param}
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_param = "batch"
    graph.ClearField("value_info")  # runtimes infer it
    nodes = [node for part in (graph, *proto.functions) for node in part.node]
    for part in (graph, *graph.input, *graph.output, *graph.initializer, *proto.functions, *nodes):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    proto.producer_name = "tombola"
    del proto.metadata_props[:]
    for key, value in sorted(about.items()):
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    return proto
