"""Fingerprints of the user's functions and values, so that a changed function is not mistaken for the same.

In doubt, things count as different: an unnecessary training costs time, but a stale result would be wrong.
"""

from __future__ import annotations

import contextlib
import copyreg
import dis
import functools
import hashlib
import importlib.util
import inspect
import random
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path, PurePath
from types import CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from tombola.engines.custom.hooks import MODULE_ATTRIBUTES, global_hooks, module_hooks, tensor_hooks
from tombola.utils.former_names import former_name

_LIBRARIES = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platlib", "purelib"))
_PLAIN = (type(None), bool, int, float, complex, str)
_PLAIN_KINDS = (PurePath, np.generic, torch.dtype, torch.device)
_RANDOM = (random.Random, np.random.RandomState, np.random.BitGenerator)
_SPARSE = ("_indices", "_values", "crow_indices", "ccol_indices", "col_indices", "row_indices", "values")

Description = tuple[str, list[Any]]
"""A text that identifies an object, and its parts."""


def fingerprint(*things: object) -> str:
    """32 hexadecimal digits that identify functions and values.

    For the user's functions, classes and modules it includes source, compiled code, defaults, base classes, and what
    they refer to. For other objects it includes what `pickle` would: their content, or what their `__getstate__`
    returns. Functions, classes and modules of libraries count by name and version; random states by their seed;
    iterators of libraries, and objects that cannot be inspected, by their class. Users' hooks on networks and tensors
    are included.
    """
    return _hash(list(things), {}).hex()[:32]


def training_fingerprint(*things: object) -> str:
    """The fingerprint of all that a training depends on: of `things`, and of torch's global hooks and default dtype,
    where they are not as torch begins."""
    dtype = torch.get_default_dtype()
    return fingerprint([*things, *global_hooks(), *([] if dtype == torch.float32 else [dtype])])


def _hash(things: list[Any], seen: dict[int, tuple[int, Any]]) -> bytes:
    """Hash each thing, then its parts; a thing in `seen` is hashed by its number there."""
    sha = hashlib.sha256()
    pending = things[::-1]
    while pending:
        thing = pending.pop()
        if type(thing) in (bytes, bytearray, memoryview):
            sha.update(f"{type(thing).__name__} {len(thing)} ".encode())
            sha.update(thing)
            continue
        parts: list[Any]
        if _plain(thing):
            said, parts = f"{type(thing).__name__} {thing!r}", []
        elif id(thing) in seen:
            said, parts = f"seen {seen[id(thing)][0]}", []
        else:
            seen[id(thing)] = len(seen), thing  # kept alive, so that its id is not reused
            if type(thing) in (set, frozenset):
                said = type(thing).__name__
                parts = sorted(_hash([item], {} if _plain(item) else dict(seen)) for item in thing)
            else:
                said, parts = _describe(thing)
        sha.update(f"{len(said)} {said} {len(parts)} ".encode())
        pending.extend(reversed(parts))
    return sha.digest()


def _plain(thing: object) -> bool:
    return type(thing) in _PLAIN or issubclass(type(thing), _PLAIN_KINDS)


def _describe(thing: Any) -> Description:
    kind = type(thing)
    try:
        if kind in (list, tuple):
            return kind.__name__, list(thing)
        if kind in (dict, MappingProxyType):
            return kind.__name__, [part for item in thing.items() for part in item]
        if isinstance(thing, torch.Tensor):
            return _tensor(thing)
        if isinstance(thing, np.ndarray) and not isinstance(thing, np.ma.MaskedArray):
            return f"array {thing.dtype} {thing.shape}", [_content(thing)]
        if isinstance(thing, FunctionType):
            return _function(thing)
        if isinstance(thing, CodeType):
            return _compiled(thing)
        if isinstance(thing, type):
            return _class(thing)
        if isinstance(thing, ModuleType):
            return _module(thing)
        return f"object {former_name(kind.__module__, kind.__qualname__)[1]}", [kind, *_parts(thing)]
    except Exception:  # noqa: BLE001 - attributes of a thing may raise anything
        return f"unknown {kind.__qualname__}", [kind]


def _parts(thing: Any) -> list[Any]:
    """The parts of an object."""
    if type(thing).__module__.startswith("torch._dynamo"):  # made by torch.compile
        return [getattr(thing, "_orig_mod", None)]
    if isinstance(thing, nn.Module):
        attributes = {name: value for name, value in vars(thing).items() if name not in MODULE_ATTRIBUTES}
        tensors = [dict(thing.named_parameters(recurse=False)), dict(thing.named_buffers(recurse=False))]
        return [attributes, *tensors, *module_hooks(thing)]
    if isinstance(thing, MethodType):
        return [thing.__func__, thing.__self__]
    if isinstance(thing, property):
        return [thing.fget, thing.fset, thing.fdel]
    if isinstance(thing, staticmethod | classmethod | functools._lru_cache_wrapper):
        return [thing.__wrapped__]
    if isinstance(thing, torch.Generator):
        return [thing.initial_seed()]
    if isinstance(thing, np.random.Generator):
        seed = getattr(thing.bit_generator.seed_seq, "entropy", None)
        return [None if isinstance(seed, int) and seed >= 2**64 else seed]  # without a seed, the system's entropy
    if isinstance(thing, _RANDOM) or (isinstance(thing, Iterator) and _of_a_library(type(thing).__module__)):
        return []
    try:
        reduce = copyreg.dispatch_table.get(type(thing))
        reduced = reduce(thing) if reduce else thing.__reduce_ex__(4)
        return [reduced] if isinstance(reduced, str) else [list(p) if isinstance(p, Iterator) else p for p in reduced]
    except Exception:  # noqa: BLE001 - a lock, say, or an object that holds one
        return [getattr(thing, "__dict__", None)]


def _tensor(tensor: Any) -> Description:
    said = f"tensor {tensor.dtype} {tuple(tensor.shape)} {tensor.layout} {tensor.requires_grad}"
    kind = [] if _of_a_library(type(tensor).__module__) else [type(tensor), vars(tensor)]
    said, content = _values(said, tensor)
    return said, [*content, *kind, *tensor_hooks(tensor)]


def _values(said: str, tensor: Any) -> Description:
    tensor = (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach()
    if tensor.is_meta:
        return f"{said} meta", []
    if tensor.layout is not torch.strided:
        parts = []
        for name in _SPARSE:
            with contextlib.suppress(RuntimeError):
                parts.append(getattr(tensor, name)())
        return said, parts
    tensor = tensor.dequantize() if tensor.is_quantized else tensor.resolve_conj().resolve_neg()
    return said, [_content(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy())]


def _content(array: np.ndarray[Any, Any]) -> Any:
    if array.dtype.hasobject:
        return array.tolist()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _function(function: FunctionType) -> Description:
    module = str(function.__globals__.get("__name__"))
    extras = [[_cell_content(cell) for cell in function.__closure__ or ()], vars(function)]
    if _of_a_library(module):
        return _named(module, function), extras
    code, names = function.__code__, function.__globals__
    globals_ = {name: names[name] for name in sorted(_names(code)) if name in names}
    own = [_source(code), code, function.__defaults__, function.__kwdefaults__, globals_]
    return f"function {function.__qualname__}", [*own, *extras, list(_imported(code, names))]


def _cell_content(cell: Any) -> Any:
    with contextlib.suppress(ValueError):  # an empty cell
        return cell.cell_contents


def _class(kind: type) -> Description:
    if _of_a_library(kind.__module__):
        return _named(kind.__module__, kind), []
    members = {
        name: member
        for name, member in vars(kind).items()
        if not name.startswith("__") or isinstance(member, FunctionType | staticmethod | classmethod | property)
    }
    return f"class {kind.__qualname__}", [_source(kind), type(kind), kind.__bases__, members]


def _module(module: ModuleType) -> Description:
    if _of_a_library(module.__name__):
        return _named(module.__name__), []
    file = getattr(module, "__file__", None)
    text = Path(file).read_bytes() if file and Path(file).is_file() else b""
    members = {name: value for name, value in vars(module).items() if not name.startswith("__")}
    return f"module {module.__name__}", [text, members]


def _named(module: str, thing: Any = None) -> str:
    """The name and version of a library's object."""
    library = module.partition(".")[0]
    version = "" if library == "tombola" else getattr(sys.modules.get(library), "__version__", "")  # stored runs stay
    module, name = former_name(module, getattr(thing, "__qualname__", ""))
    return f"library {module} {name} {version}"


def _source(thing: Any) -> str:
    try:
        return inspect.getsource(thing)
    except Exception:  # noqa: BLE001 - interactive or compiled code, or its file has changed
        return ""


def _compiled(code: CodeType) -> Description:
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return f"code {code.co_flags}", [code.co_code, code.co_names, arguments, code.co_consts]


def _inner(code: CodeType) -> Iterator[CodeType]:
    """The code, and that of its inner functions."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _inner(constant)


def _names(code: CodeType) -> set[str]:
    return {name for inner in _inner(code) for name in inner.co_names}


def _imported(code: CodeType, names: dict[str, Any]) -> Iterator[ModuleType]:
    """The user's modules that a function imports when it is called; this imports them."""
    for inner in _inner(code):
        steps = [step for step in dis.get_instructions(inner) if step.opname != "EXTENDED_ARG"]
        for level, wanted, step in zip(steps, steps[1:], steps[2:], strict=False):
            if step.opname != "IMPORT_NAME":
                continue
            with contextlib.suppress(Exception, SystemExit):  # the module may be missing
                name = importlib.util.resolve_name("." * level.argval + step.argval, names.get("__package__"))
                if not _of_a_library(name):
                    yield importlib.import_module(name)
                    for part in wanted.argval or ():
                        with contextlib.suppress(ImportError):
                            yield importlib.import_module(f"{name}.{part}")


def _of_a_library(name: str) -> bool:
    """Whether the module is Tombola's or is installed as a library; modules without a file are not."""
    top = str(name).partition(".")[0]
    if top in ("tombola", "__main__"):
        return top == "tombola"
    places = _places(sys.modules.get(str(name))) or _places(sys.modules.get(top))
    if not places and top in sys.stdlib_module_names:
        return True
    if not places:
        with contextlib.suppress(Exception):  # finders may raise anything
            spec = importlib.util.find_spec(top)
            places = [Path(spec.origin).resolve()] if spec and spec.origin else []
    return any({"site-packages", "dist-packages", *_LIBRARIES} & {*place.parts, *place.parents} for place in places)


def _places(module: ModuleType | None) -> list[Path]:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return [Path(place).resolve() for place in places if place]
