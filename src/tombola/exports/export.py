"""Export: a ticket made into files that are smaller and faster, and the proof that they compute the same."""

from __future__ import annotations

import copy
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor, nn

from tombola.exports.artefacts import ARTEFACTS, FILES, Shipment, dense, dense_onnx
from tombola.exports.measuring import BATCHES, TURNS, Artefact, Count, Figures, Positive, measure, quiet
from tombola.exports.torch_export import check_example
from tombola.pruning.hold import release
from tombola.tickets.ticket import Precision, Ticket
from tombola.utils.errors import InputError, unknown
from tombola.utils.files import atomic_write
from tombola.utils.text import one_line
from tombola.utils.versions import versions
from tombola.utils.workers import cores, processor
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.registry import DATASETS, PARQUET_DATASETS
from tombola.zoo.models import MODELS, make

log = logging.getLogger(__name__)

SHIPPED = "shipped"
"""The folder beside a ticket that exports are written to."""

MEASURED = "measured.json"
"""What was measured of them, in that folder."""


@dataclass(frozen=True)
class Examples:
    """What artefacts are tried on. Raises `InputError` for what they cannot be tried on."""

    x: Tensor
    """Inputs, float32 on the CPU: (N, *inputs), N at least 1."""
    y: Tensor | None = None
    """Labels, int64 on the CPU, from 0: (N,); where there are any."""
    what: str = "made up"
    inputs: str = ""
    """How inputs were scaled, in words."""

    def __post_init__(self) -> None:
        for name, given, dtype in (("x", self.x, torch.float32), ("y", self.y, torch.int64)):
            if given is not None and (given.dtype != dtype or given.device.type != "cpu"):
                raise InputError(
                    f"examples: {name} should be {dtype} on the CPU, not {given.dtype} on {given.device}"
                )
        if self.x.dim() < 2 or not self.x.numel():
            raise InputError(f"examples: x should be (N, *inputs), not {tuple(self.x.shape)}")
        if self.y is not None and self.y.shape != self.x.shape[:1]:
            raise InputError(f"examples: y should be ({len(self.x)},), one for each of x, not {tuple(self.y.shape)}")
        if self.y is not None and int(self.y.min()) < 0:
            raise InputError(f"examples: y should be whole numbers from 0, not {int(self.y.min())}")


@dataclass(frozen=True)
class Origin:
    """The ticket that artefacts were made of."""

    weights: Count
    """How many are left."""
    weights_total: Positive
    """Of how many."""
    level: Count | None = None
    replicate: Count | None = None
    key: str | None = None
    """Of the run that trained it."""


@dataclass(frozen=True)
class About:
    """What figures are of."""

    inputs: str
    """What artefacts take."""
    ticket: Origin
    data: str
    """What they were tried on."""
    examples: Positive
    """How many."""
    threads: Positive
    machine: str
    versions: dict[str, str]


@dataclass(frozen=True)
class _Measured(About):
    """What the file of figures holds."""

    artefacts: Annotated[list[Figures], Field(min_length=1)]
    left_out: dict[str, str]


@dataclass(frozen=True)
class Export:
    """What was exported."""

    folder: Path
    figures: list[Figures]
    """The dense network's first."""
    about: About
    left_out: dict[str, str] = field(default_factory=dict)
    """Artefacts that could not be made, and why."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        figures = [asdict(each) for each in self.figures]
        return {**asdict(self.about), "left_out": self.left_out, "artefacts": figures}


def export(
    ticket: Ticket,
    folder: str | Path,
    *,
    kinds: Sequence[str] = tuple(ARTEFACTS),
    must: bool = False,
    network: nn.Module | None = None,
    examples: Examples | None = None,
    precision: Precision = "fp16",
    threads: int = 1,
    data_dir: Path | None = None,
    trust: bool = False,
    turns: int = TURNS,
    tell: Callable[[str], None] = quiet,
) -> Export:
    """Write the artefacts of these `kinds` (see `ARTEFACTS`) to `folder`, and measure them beside the dense network.

    `network` has the ticket's architecture and is only copied; without it, it is made by the ticket's own record,
    which imports code that is not tombola's only if it is to be `trust`ed. `examples` are tried and timed; without
    them it is the test set of the data in the record, looked for in `data_dir` first, or made-up numbers. `precision`
    is that of the weights in the ticket file; each side is timed in so many `turns`; `tell` is called with what is
    done next. What cannot be made of this ticket is left out, and `Export.left_out` says why; where all
    kinds `must` be made, it is an `InputError`.

    At the end the new files take the place of all that an earlier export left in the folder: nobody shall take its
    files for those of this ticket. Until then, and after an error, the folder is as it was.

    Raises `InputError` where the ticket has no trained weights, there is no network or none that takes the examples,
    an unknown kind is asked for, `threads` or `turns` are less than 1, `threads` are more than four for each core, or
    the folder cannot be written.
    """
    for name, count in (("threads", threads), ("turns", turns)):
        if type(count) is not int or count < 1:
            raise InputError(f"{name}: should be a whole number from 1, not {count!r}")
    if threads > (most := 4 * cores()):
        raise InputError(f"threads: should be at most {most}, four for each core of this machine, not {threads}")
    for kind in kinds:
        if kind not in ARTEFACTS:
            raise unknown("artefact", kind, list(ARTEFACTS))
    ours, place = _trained(ticket, network, trust), Path(folder)
    tried = examples or _examples(ticket, data_dir)
    example = tried.x[:2]
    check_example(ours, example)
    inputs = f"float32 (N, {', '.join(map(str, tried.x.shape[1:]))})" + (f", {tried.inputs}" if tried.inputs else "")
    about = About(inputs, _origin(ticket), tried.what, len(tried.x), threads, processor(), versions())
    options = {"threads": threads, "precision": precision}
    said = {
        "inputs": inputs,
        "ticket": {name: value for name, value in asdict(about.ticket).items() if value is not None},
    }
    with _beside(place) as beside:
        made, left_out = _made(Shipment.of(ticket, ours, example, beside, about=said, **options), kinds, must, tell)
        result = Export(place, measure(made, tried.x, tried.y, threads, turns, tell), about, left_out)
        _publish(result, beside)
    return result


def read_export(folder: Path) -> Export:
    """What was measured of the artefacts in a folder. Raises `InputError` where that is damaged."""
    path = folder / MEASURED
    try:
        # JSON's own types only, and no text that could not be written as UTF-8.
        measured = TypeAdapter(_Measured).validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        where = "".join(f"{each}: " for each in (".".join(map(str, found["loc"])),) if each)
        raise InputError(f"{path} is damaged: {one_line(ValueError(where + found['msg']))}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    about = About(**{each.name: getattr(measured, each.name) for each in fields(About)})
    return Export(folder, measured.artefacts, about, measured.left_out)


def _made(
    shipment: Shipment, kinds: Sequence[str], must: bool, tell: Callable[[str], None]
) -> tuple[list[Artefact], dict[str, str]]:
    """The artefacts, those to compare with first; and why others are not there. Only what is wrong with the ticket,
    or missing on this machine, leaves one out: other errors are ours, and come through."""
    made: list[Artefact] = []
    left_out = {}
    tell("writing what to compare with")  # which nobody asked for, and is not kept
    made.append(replace(dense(shipment), file=""))
    try:
        made.append(replace(dense_onnx(shipment), file=""))
    except InputError as error:
        left_out["dense ONNX"] = str(error)
    for kind in dict.fromkeys(kinds):
        tell(f"writing {kind}")
        try:
            made.append(ARTEFACTS[kind](shipment))
        except InputError as error:
            if must:
                raise InputError(f"no {kind} can be made, so nothing was written: {error}") from error
            left_out[kind] = str(error)
    return made, left_out


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder for what is not yet whole, in `folder`, from where files can be moved at once. Raises `InputError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        within = tempfile.TemporaryDirectory(prefix=".export.", dir=folder)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be written: {error.strerror}") from error
    with within as name:
        yield Path(name)


def _publish(made: Export, beside: Path) -> None:
    """Move its files to its folder, with figures, in the place of those of an earlier export. Raises `InputError`."""
    folder, text = made.folder, json.dumps(made.to_json(), indent=1, allow_nan=False)
    try:
        # A ticket without figures beside it may be the only one: all other files can be made of it again.
        stale = [file for kind, file in FILES.items() if kind != "ticket" or (folder / MEASURED).exists()]
        for file in (MEASURED, *stale):
            (folder / file).unlink(missing_ok=True)
        for file in filter(None, (each.file for each in made.figures)):
            (beside / file).replace(folder / file)
        with atomic_write(folder / MEASURED) as temporary:  # last: figures are never of other files
            temporary.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be written: {error.strerror}") from error


def _trained(ticket: Ticket, given: nn.Module | None, trust: bool) -> nn.Module:
    """A network of our own with the trained weights: float32, on the CPU, in evaluation mode."""
    if ticket.trained is None:
        raise InputError(
            "this ticket has no trained weights to export: it is of an older tombola, or was saved without them; "
            "the same `tombola run` again writes it with them, and trains nothing that its store remembers"
        )
    network = _network(ticket, trust) if given is None else copy.deepcopy(given)
    release(network)
    return ticket.into(network, trained=True).cpu().float().eval()


def _network(ticket: Ticket, trust: bool) -> nn.Module:
    """The network that the ticket's record names."""
    if ticket.drawn is None:
        raise InputError(
            "this ticket does not say what network it is of: in Python, "
            "tombola.export(ticket, folder, network=..., examples=...) takes yours"
        )
    described = ticket.drawn.network
    if described.name in MODELS:
        return ticket.network()
    if not trust:
        raise InputError(
            f'its network "{described.name}" is code from outside tombola that would be imported and run; if you '
            f"know that code and trust the file, say --trust"
        )
    with torch.random.fork_rng(devices=[]):
        return make(described)


def _examples(ticket: Ticket, data_dir: Path | None) -> Examples:
    """The test set that the record names; made-up numbers where it cannot be had, which is said."""
    if ticket.drawn is None:
        raise InputError(
            "this ticket does not say what its examples are: tombola.export(..., examples=...) takes yours"
        )
    try:
        data = _data(ticket)
        split = prepare(data, data_dir)
    except InputError as error:
        log.warning("tried on made-up numbers, so there are no accuracies: %s", error)
        generator = torch.Generator().manual_seed(0)
        return Examples(torch.randn(BATCHES[-1], *ticket.drawn.network.inputs, generator=generator))
    x, y = split.test[torch.arange(len(split.test))]
    return Examples(x.contiguous(), y, f"the test set of {data.name}", split.scaling)


def _data(ticket: Ticket) -> Data:
    """The data of its run. Raises `InputError` where the record does not say."""
    try:
        data = Data.model_validate_json(json.dumps(ticket.provenance["run"]["data"]))
        if data.name in DATASETS or data.name in PARQUET_DATASETS:
            return data
        named = ticket.provenance["recipe"]["data"]["name"]  # a run does not say where files lie
        return Data.model_validate({**dict(data), "name": named})
    except (LookupError, TypeError, ValidationError):
        raise InputError("the ticket does not say what data it was trained on") from None


def _origin(ticket: Ticket) -> Origin:
    """What the record says, as far as it is of the right type: it is a file's word."""
    level, replicate = (
        n if type(n := ticket.provenance.get(name)) is int and 0 <= n < 2**63 else None
        for name in ("level", "replicate")
    )
    key = ticket.provenance.get("key")
    known = isinstance(key, str) and key.isprintable()  # which lone surrogates are not
    return Origin(ticket.mask.count, ticket.mask.size, level, replicate, key if known else None)
