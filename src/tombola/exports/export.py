"""Export: a ticket as smaller and faster files, measured beside the dense network."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from torch import nn

from tombola.exports.artefact_files import FILES
from tombola.exports.artefacts import ARTEFACTS, ExportContext, dense, dense_on_gpu, dense_onnx
from tombola.exports.benchmark import ROUNDS, Artefact, measure, no_progress
from tombola.exports.dense_network import dense_network
from tombola.exports.examples import Examples, count_shared, sample
from tombola.exports.export_result import FIGURES_FILE, Export, ExportInfo, TicketInfo
from tombola.exports.int8 import CALIBRATION_EXAMPLES
from tombola.exports.onnx_file import OnnxModel
from tombola.exports.ticket_examples import examples_of_test_set, examples_of_training
from tombola.exports.torch_export import check_example
from tombola.pruning.hold import release
from tombola.tickets.precision import Precision
from tombola.tickets.ticket import Ticket
from tombola.tickets.user_code import import_named, named_functions, require_trust
from tombola.utils.errors import InputError, unknown
from tombola.utils.files import atomic_write, writing
from tombola.utils.libraries import require, versions
from tombola.utils.model_inputs import call_checked, describe, rows, tensors
from tombola.utils.network_copy import copy_network
from tombola.utils.random_state import preserve_rng_state
from tombola.utils.text import first_line
from tombola.utils.workers import cores, processor
from tombola.zoo.models import MODELS, make


def export(
    ticket: Ticket,
    folder: str | Path,
    *,
    kinds: Sequence[str] = tuple(ARTEFACTS),
    strict: bool = False,
    network: nn.Module | None = None,
    factory: Callable[[], nn.Module] | None = None,
    examples: Examples | None = None,
    calibration: Examples | None = None,
    results: str | Path | None = None,
    precision: Precision = "fp16",
    threads: int = 1,
    data_dir: str | Path | None = None,
    trust: bool = False,
    turns: int = ROUNDS,
    progress: Callable[[str], None] = no_progress,
    must: bool | None = None,
    tell: Callable[[str], None] | None = None,
) -> Export:
    """Write the artefacts of these `kinds` (see `ARTEFACTS`) to `folder`, and measure them beside the dense network.

    `network` has the ticket's architecture and is only copied, or `factory` makes one; by default it is built as the
    ticket says, which imports code from outside tombola only with `trust`. Artefacts are measured on `examples`, by
    default the test set that the ticket names, searched for in `data_dir` first, or random numbers if that is
    missing. The ranges of int8 are measured on `calibration`, by default examples that the ticket was trained on; if
    that fails with those given, int8 cannot be made. The accuracy of the dense network itself is that which the
    ticket records, or the folder of its `results`. `precision` is that of the weights in the ticket file; `turns` is
    the number of timings of each artefact; `progress` is called with a line about each step. A kind that cannot be
    made of this ticket is left out, and `Export.left_out` says why; with `strict` it is an `InputError`. `must` and
    `tell` are deprecated: use `strict` and `progress`.

    The new files replace those of an earlier export only at the end; after an error, the folder is unchanged. Raises
    `InputError` if the ticket has no trained weights, the network is missing or does not take the examples, a kind is
    unknown, `threads` or `turns` are less than 1, `threads` more than four for each core, or the folder not writable.
    """
    for former, present, value in (("must", "strict", must), ("tell", "progress", tell)):
        if value is not None:
            warnings.warn(f"export(): {former}= is deprecated: use {present}=", DeprecationWarning, stacklevel=2)
    strict, progress = strict if must is None else must, progress if tell is None else tell
    for name, count in (("threads", threads), ("turns", turns)):
        if type(count) is not int or count < 1:
            raise InputError(f"{name}: should be a whole number from 1, not {count!r}")
    if threads > (most := 4 * cores()):
        raise InputError(f"threads: should be at most {most}, four for each core of this machine, not {threads}")
    for kind in kinds:
        if kind not in ARTEFACTS:
            raise unknown("artefact", kind, list(ARTEFACTS))
    for name, given in (("examples", examples), ("calibration", calibration)):
        if given is not None and not isinstance(given, Examples):
            raise InputError(f"{name}: should be tombola.Examples(x), not {type(given).__name__}")
    trained, target = _trained_network(ticket, factory if network is None else network, trust), Path(folder)
    examples = examples_of_test_set(ticket, data_dir) if examples is None else examples
    example = rows(examples.x, slice(2))
    check_example(copy_network(trained), example)  # which may keep feature maps
    shape = describe(examples.x)
    inputs = f"{shape}, {examples.inputs}" if examples.inputs else shape
    ticket_info = _ticket_info(ticket)
    calibration_given = calibration is not None
    if "int8" in kinds:
        training = None if calibration_given else examples_of_training(ticket, data_dir)
        calibration = _calibration(calibration, training, trained, examples)
    of_dense = dense_network(ticket, results)
    info = ExportInfo(inputs, ticket_info, examples.what, len(examples), threads, processor(), versions(), of_dense)
    known = {name: value for name, value in asdict(ticket_info).items() if value is not None}
    with _temporary_folder(target) as temporary:
        options = {"about": {"inputs": inputs, "ticket": known}, "threads": threads, "precision": precision}
        options |= {"calibration": calibration, "calibration_given": calibration_given}
        context = ExportContext.of(ticket, trained, example, temporary, **options)
        made, left_out = _write_artefacts(context, kinds, strict, progress)
        if any(isinstance(each.predict, OnnxModel) for each in made):
            runtime = {"onnxruntime": require("onnxruntime", "onnx").__version__}
            info = replace(info, versions=info.versions | runtime)
        result = Export(target, measure(made, examples.x, examples.y, threads, turns, progress), info, left_out)
        _move_files(result, temporary)
    return result


def _write_artefacts(
    context: ExportContext, kinds: Sequence[str], strict: bool, progress: Callable[[str], None]
) -> tuple[list[Artefact], dict[str, str]]:
    """The artefacts, those of the ticket stored densely first; and why others are missing, those that raise
    `InputError`."""
    made: list[Artefact] = []
    left_out = {}
    progress("writing the ticket's dense weights")  # these files are not kept
    made.append(replace(dense(context), file=""))
    try:
        made.append(replace(dense_onnx(context), file=""))
    except InputError as error:
        left_out["ticket, dense ONNX"] = str(error)
    for kind in dict.fromkeys(kinds):
        progress(f"writing {kind}")
        try:
            made.append(ARTEFACTS[kind](context))
        except InputError as error:
            if strict:
                raise InputError(f"no {kind} can be made, so nothing was written: {error}") from error
            left_out[kind] = str(error)
    if any(each.device == "cuda" for each in made):
        made.insert(1, replace(dense_on_gpu(context), file=""))
    return made, left_out


def _calibration(
    given: Examples | None, training: Examples | None, network: nn.Module, measured: Examples
) -> Examples | None:
    """The examples to calibrate with: those that were given, or training examples if the network takes them. It is
    said if accuracy is measured on some of them, too. Raises `InputError` if it does not take those given, or they
    have other shapes than those measured, or numbers that are not finite."""
    if (found := training if given is None else given) is None:
        return None
    chosen = sample(found, CALIBRATION_EXAMPLES)
    try:
        call_checked(copy_network(network), rows(chosen.x, slice(2)))
    except InputError as error:
        if given is None:
            return None
        raise InputError(f"calibration: {error}") from error
    if given is not None:
        _check_calibration(chosen, measured)
    both = count_shared(chosen, measured)
    said = f", and accuracy is measured on {both:,} of them, too" if both else ""
    return replace(chosen, what=chosen.what + said)


def _check_calibration(given: Examples, measured: Examples) -> None:
    """Raises `InputError`."""
    shapes = [sorted(tuple(tensor.shape[1:]) for tensor in tensors(each.x)) for each in (given, measured)]
    if shapes[0] != shapes[1]:
        ours, theirs = (describe(each.x) for each in (given, measured))
        raise InputError(f"calibration: should be like the examples, {theirs}, not {ours}")
    if not all(tensor.isfinite().all() for tensor in tensors(given.x)):
        raise InputError("calibration: should be finite numbers, without NaN or infinity")


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder in `folder`, so that files can be moved atomically. Raises `InputError`."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        within = tempfile.TemporaryDirectory(prefix=".export.", dir=folder)
    with within as name:
        yield Path(name)


def _move_files(made: Export, temporary: Path) -> None:
    """Replace the files of an earlier export with the new ones and their measurements. Raises `InputError`."""
    folder, text = made.folder, json.dumps(made.to_json(), indent=1, allow_nan=False)
    with writing(folder):
        # A ticket without measurements beside it may be the only copy; all other files can be made of it again.
        stale = [file for kind, file in FILES.items() if kind != "ticket" or (folder / FIGURES_FILE).exists()]
        for file in (FIGURES_FILE, *stale):
            (folder / file).unlink(missing_ok=True)
        for file in filter(None, (each.file for each in made.figures)):
            (temporary / file).replace(folder / file)
        with atomic_write(folder / FIGURES_FILE) as path:  # last: measurements never belong to other files
            path.write_text(text + "\n", encoding="utf-8")


def _trained_network(ticket: Ticket, given: nn.Module | Callable[[], nn.Module] | None, trust: bool) -> nn.Module:
    """A new network with the trained weights: float32, on the CPU, in evaluation mode."""
    if ticket.trained is None:
        raise InputError(
            "this ticket has no trained weights to export: it was saved without them, or by an older tombola; the "
            "same `tombola run` again writes it with them, and takes finished runs from its store"
        )
    if given is None and ticket.drawn is not None and ticket.drawn.network.name in MODELS:
        network = ticket.network()
    else:
        network = _imported_network(ticket, trust) if given is None else _made(given)
        release(network)
        ticket.into(network, trained=True)
    return network.cpu().float().eval()


def _imported_network(ticket: Ticket, trust: bool) -> nn.Module:
    """The network that the ticket names, of code from outside tombola."""
    if ticket.drawn is not None:
        require_trust(f'its network "{ticket.drawn.network.name}"', trust)
        with preserve_rng_state():
            return make(ticket.drawn.network)
    named = named_functions(ticket).get("model")
    if named is None:
        raise InputError(
            "this ticket does not name its network: say --factory package.module:function or, in Python, "
            "tombola.export(ticket, folder, factory=..., examples=...)"
        )
    return _made(import_named("model", named, trust))


def _made(factory: object) -> nn.Module:
    """The network that a factory makes; a copy of it if it is one."""
    if isinstance(factory, nn.Module):
        return copy_network(factory)
    if not callable(factory):
        raise InputError(f"factory: should be a function that makes the network, not {type(factory).__name__}")
    with preserve_rng_state():
        try:
            made = factory()
        except Exception as error:  # a user's function may raise anything
            raise InputError(f"factory: failed: {first_line(error)}") from error
    if not isinstance(made, nn.Module):
        raise InputError(f"factory: returned {type(made).__name__}, not a torch.nn.Module")
    return made


def _ticket_info(ticket: Ticket) -> TicketInfo:
    """What the provenance says, as far as types and ranges are valid: a file can say anything."""
    level, replicate = (
        n if type(n := ticket.provenance.get(name)) is int and 0 <= n < 2**63 else None
        for name in ("level", "replicate")
    )
    key = ticket.provenance.get("key")
    valid = isinstance(key, str) and key.isprintable()  # lone surrogates are not printable
    found = key if valid else None
    return TicketInfo(ticket.mask.count, ticket.mask.size, level, replicate, found, ticket.density_of_all)
