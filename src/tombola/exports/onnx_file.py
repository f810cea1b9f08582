"""ONNX: a network in one file that other runtimes read, checked in ONNX Runtime before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tombola.exports.torch_export import agreement, exported, on_cpu, silent
from tombola.utils.errors import InputError
from tombola.utils.extras import require
from tombola.utils.files import atomic_write
from tombola.utils.text import first_line

TORCH = "2.7"
"""The first torch whose exporter writes batch norm with the onnxscript of today; 2.5 and 2.6 cannot."""
LARGEST = 2**31 - 1
"""The most bytes that one file of protocol buffers can have."""


def write_onnx(
    network: nn.Module, example: Tensor, path: str | Path, about: Mapping[str, str] | None = None
) -> float:
    """Write what `network` computes in eval mode to the ONNX file `path`, for batches of any size.

    `example` is a batch of inputs, float32 on the CPU. The file's input is `input`, its output `output`, the first
    axis of both `batch`; weights are inside, zeros included; `about` becomes the model's metadata. The same network
    gives the same bytes. ONNX Runtime's answers are checked against PyTorch's; the largest absolute difference is
    returned. Raises `InputError` where torch cannot export the network, where the answers differ by more than
    `exported.TOLERANCE` of the largest (then nothing is written), and where the extra `onnx` or torch 2.7 is missing.
    """
    _exporter()
    model = on_cpu(network)
    program = exported(model, example)
    try:
        with silent():
            made = torch.onnx.export(
                program, (), dynamo=True, input_names=["input"], output_names=["output"], verbose=False
            )
        assert made is not None  # only the older exporter gives none
        proto = made.model_proto
    except Exception as error:
        raise InputError(f"torch cannot write this network as ONNX: {first_line(_first(error))}") from error
    if proto.ByteSize() > LARGEST:
        raise InputError(f"this network has {proto.ByteSize():,} bytes as ONNX; a file of it can have {LARGEST:,}")
    content = _tidy(proto, about or {}).SerializeToString(deterministic=True)
    difference = agreement(model, OnnxModel(content), example, "ONNX Runtime")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(content)
    return difference


class OnnxModel:
    """A network in ONNX Runtime, on the CPU: maps a batch of inputs to outputs, both float32 on the CPU.

    `about` is its metadata.
    """

    def __init__(self, content: bytes, threads: int = 1) -> None:
        runtime = require("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors, which are raised
        self._session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self.about: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, inputs: Tensor) -> Tensor:
        """The outputs for a batch of any size."""
        return torch.from_numpy(self._session.run(None, {self._input: inputs.numpy()})[0])


def read_onnx(path: str | Path, threads: int = 1) -> OnnxModel:
    """The network in an ONNX file, to run in ONNX Runtime with so many threads.

    Raises `InputError` where there is no such file, ONNX Runtime cannot read it, or the extra `onnx` is missing.
    """
    require("onnxruntime", "onnx")
    try:
        return OnnxModel(Path(path).read_bytes(), threads)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # whatever the runtime says
        raise InputError(f"{path} is damaged or no ONNX model: {first_line(error)}") from error


def stored(path: str | Path) -> int:
    """Bytes of the numbers that an ONNX file holds, its initializers.

    Raises `InputError` where there is no such file, it is no ONNX model, or the extra `onnx` is missing.
    """
    onnx, helper = require("onnx", "onnx"), require("onnx.numpy_helper", "onnx")
    try:
        return sum(helper.to_array(each).nbytes for each in onnx.load(Path(path)).graph.initializer)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # whatever protocol buffers say
        raise InputError(f"{path} is damaged or no ONNX model: {first_line(error)}") from error


def _exporter() -> None:
    """Raise `InputError` unless what `torch.onnx.export` is made of is there."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        require(module, "onnx")
    if torch.__version__ < TORCH:
        raise InputError(f"ONNX files are written by torch {TORCH} or newer, this is {torch.__version__}")


def _first(error: BaseException) -> Exception:
    """What `error` began with: torch wraps it in advice on how to report it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error if isinstance(error, Exception) else Exception(str(error))


def _tidy(proto: Any, about: Mapping[str, str]) -> Any:
    """Name the batch axis, say who made it, and leave out what torch notes of this machine: its paths, above all."""
    graph = proto.graph
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == symbol:
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
