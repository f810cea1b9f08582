"""Ticket: a mask, its initial weights, and their provenance; one file on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from torch import nn

from tombola.pruning.mask import Mask, State
from tombola.pruning.network_state import load_state, persistent_tensors
from tombola.tickets import file_format as ticket_file
from tombola.tickets import safe_init
from tombola.tickets.file_format import FORMAT, TicketParts, kept_values
from tombola.tickets.precision import Precision
from tombola.utils import files
from tombola.utils.errors import DamagedFile, InputError, unknown
from tombola.utils.text import one_line
from tombola.zoo.models.description import Start

Module = TypeVar("Module", bound=nn.Module)
StartStorage = Literal["auto", "seed", "value"]


@dataclass(frozen=True)
class Stored:
    """How a ticket is stored in its file."""

    bytes: int
    """The size of the file."""
    start: Literal["seed", "value"]
    """Whether the file stores the seed of the initial weights, or their values."""
    trained: str
    """The precision of the trained weights: `fp32`, `fp16`, `bf16`, or `none`."""
    format: int = FORMAT


class Ticket:
    """A sparse subnetwork at its initial weights, m ⊙ θ0 (Frankle & Carbin 2019, section 1). Immutable."""

    def __init__(
        self,
        mask: Mask,
        start: State,
        provenance: dict[str, Any] | None = None,
        trained: State | None = None,
        *,
        drawn: Start | None = None,
    ) -> None:
        """`start` is a whole `state_dict` of initial weights, zero where pruned; so is `trained`, after training.
        Both have the names of parameters and buffers, even if the network's own `state_dict` has others.
        `provenance` describes the ticket's origin, as JSON values. `drawn`, if known, describes the network and how
        its initial weights are drawn."""
        self._mask = mask
        self._start: State | None = start
        self._provenance = {} if provenance is None else provenance
        self._trained = trained
        self._drawn = drawn
        self._digest: str | None = None  # the digest of initial weights that are drawn on first use
        self._stored: Stored | None = None

    @property
    def mask(self) -> Mask:
        """The weights that are kept."""
        return self._mask

    @property
    def start(self) -> State:
        """A whole `state_dict`: the initial weights, zero where they are pruned. If the file stores them by seed,
        they are drawn on first use. Raises `InputError` if this machine draws other weights than the ticket's."""
        if self._start is None:
            assert self._drawn is not None
            start = safe_init.draw_weights(self._drawn, self.mask)
            if files.digest(kept_values(start, self.mask)) != self._digest:
                raise InputError(
                    "this machine, or this version of torch, draws other initial weights than the ticket's; on the "
                    'machine that made it, save it by value: ticket.save(path, start="value")'
                )
            self._start = start
        return self._start

    @property
    def provenance(self) -> dict[str, Any]:
        """The ticket's origin, as JSON values: recipe, the run that trained it, its figures, versions."""
        return self._provenance

    @property
    def density_of_all(self) -> float | None:
        """The fraction left of all matrix weights of the network, prunable or not; None if the provenance does not
        have their number."""
        total = self.provenance.get("matrix_weights")
        if type(total) is not int or not self.mask.size <= total < 2**63:  # a file can say anything
            return None
        return 1 - (self.mask.size - self.mask.count) / total

    @property
    def trained(self) -> State | None:
        """A whole `state_dict`: the trained weights, zero where they are pruned; None if the ticket has no trained
        weights. Read from a file, they are float32, for any stored precision."""
        return self._trained

    @property
    def drawn(self) -> Start | None:
        """The description of the network and of how its initial weights are drawn; None if unknown."""
        return self._drawn

    @property
    def stored(self) -> Stored | None:
        """How the ticket is stored in the file it was loaded from; None if it was not loaded from a file."""
        return self._stored

    def __repr__(self) -> str:
        trained = "" if self.trained is None else ", with trained weights"
        return f"Ticket({self.mask}{trained})"

    def _repr_html_(self) -> str:
        return self.mask._repr_html_()

    def into(self, network: Module, *, trained: bool = False) -> Module:
        """Load the initial or the trained weights into a network of the same architecture, in place; return it.

        Raises `InputError` if names or shapes differ, if the ticket has no trained weights, or if pruned weights are
        not zero.
        """
        weights = self._weights(trained)
        theirs = {name: tuple(tensor.shape) for name, tensor in persistent_tensors(network).items()}
        ours = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        if theirs != ours:
            name = next(n for n in [*ours, *theirs] if theirs.get(n) != ours.get(n))
            raise InputError(
                f"this ticket is for another architecture: {name} is {ours.get(name, 'missing')} in the ticket "
                f"and {theirs.get(name, 'missing')} in the network"
            )
        load_state(network, weights)
        self.mask.apply_(network)  # in files of earlier versions, other names of tied weights are not pruned
        return network

    def network(self, *, trained: bool = True) -> nn.Module:
        """The network, on the CPU and in evaluation mode, with the trained or the initial weights. Raises
        `InputError` unless it is a built-in network: nothing that a file names is imported."""
        if self.drawn is None:
            raise InputError("this ticket does not name its network; give a network: ticket.into(network)")
        return self.into(safe_init.make_network(self.drawn.network, self.mask), trained=trained).eval()

    def _weights(self, trained: bool) -> State:
        if not trained:
            self._check_pruned("start", self.start)
            return self.start
        if self.trained is None:
            raise InputError("this ticket has no trained weights: it was saved without them")
        self._check_pruned("trained", self.trained)
        return self.trained

    def _check_pruned(self, what: str, state: State | None) -> None:
        """Raises `InputError` if a pruned weight in `state` is not zero, because a file cannot store it."""
        for name, kept in self.mask.items():
            if state and name in state and (revived := int(state[name].cpu()[~kept].count_nonzero())):
                raise InputError(f"{what}: {revived:,} pruned weights of {name} are not zero; all should be")

    def save(self, path: str | Path, *, start: StartStorage = "auto", trained: Precision = "fp32") -> None:
        """Write the ticket to one safetensors file; docs/reference/ticket-file.md describes the format.

        `start` sets how initial weights are stored. `seed` stores how they are drawn, which takes little space but
        needs a torch that draws the same numbers; `value` stores the weights; `auto` uses `seed` if it works here,
        otherwise `value`. `trained` is the precision of the trained weights, if there are any.

        Raises `InputError` if drawing from the seed does not give the initial weights, trained weights are out of
        range for the precision, pruned weights are not zero, or the file cannot be written.
        """
        for option, value, kind in (("start", start, StartStorage), ("trained", trained, Precision)):
            if value not in get_args(kind):
                raise unknown(f"way to save {option}", str(value), get_args(kind))
        self._check_pruned("start", self._start)
        self._check_pruned("trained", self.trained)
        digest = None if start == "value" else self._start_digest(strict=start == "seed")
        parts = TicketParts(
            self.mask,
            self.start if digest is None else None,
            digest,
            self.drawn,
            None if trained == "none" else self.trained,
            "none" if self.trained is None else trained,
            self.provenance,
        )
        files.write_tensors(path, ticket_file.to_tensors(parts), {"format": FORMAT})

    def _start_digest(self, strict: bool) -> str | None:
        """The digest of the initial weights if they can be drawn again. Otherwise None, or `InputError` if
        `strict`."""
        if self._digest is not None:
            return self._digest
        try:
            if self.drawn is None:
                raise InputError('it is unknown how the initial weights are drawn; use "value"')
            digest = files.digest(kept_values(safe_init.draw_weights(self.drawn, self.mask), self.mask))
            if digest != files.digest(kept_values(self.start, self.mask)):
                raise InputError('drawing from the seed gives other initial weights; use start="value"')
        except InputError as error:
            if strict:
                raise InputError(f"start: {error}") from error
            return None
        return digest

    @classmethod
    def load(cls, path: str | Path) -> Ticket:
        """Read a ticket file. Nothing in it is executed, and nothing that it names is imported.

        Raises `InputError` if the file is missing, damaged, or not a ticket.
        """
        try:
            parts, size = ticket_file.read(Path(path))
            if parts.digest is not None:
                assert parts.drawn is not None
                safe_init.check_drawable(parts.drawn, parts.mask)
        except FileNotFoundError:
            raise InputError(f"there is no ticket file {path}") from None
        except InputError as error:
            raise InputError(f"the ticket {path} cannot be used: {one_line(error)}") from error
        except (DamagedFile, OSError) as error:
            raise InputError(str(error)) from error
        ticket = cls(parts.mask, parts.start or {}, parts.provenance, parts.trained, drawn=parts.drawn)
        ticket._start, ticket._digest = parts.start, parts.digest
        ticket._stored = Stored(size, "value" if parts.digest is None else "seed", parts.precision, parts.format)
        return ticket
