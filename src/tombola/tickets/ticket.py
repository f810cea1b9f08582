"""Ticket: a mask, the weights it starts from, and where it came from; one file on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch import Tensor, nn

from tombola.pruning.mask import Mask, State
from tombola.tickets import file_format as ticket_file
from tombola.tickets import safe_init as drawing
from tombola.tickets.file_format import FORMAT, PRECISIONS, Parts, values
from tombola.utils import files
from tombola.utils.errors import DamagedFile, InputError, unknown
from tombola.utils.text import one_line
from tombola.zoo.models.description import Start

Module = TypeVar("Module", bound=nn.Module)
Kept = Literal["auto", "seed", "value"]
Precision = Literal["fp32", "fp16", "bf16", "none"]


@dataclass(frozen=True)
class Stored:
    """How a file holds a ticket."""

    bytes: int
    """Of the file."""
    start: Literal["seed", "value"]
    """Whether the initial weights are there by what they are drawn with, or by value."""
    trained: str
    """The precision of the trained weights: `fp32`, `fp16`, `bf16`, or `none`."""
    format: int = FORMAT


class Ticket:
    """A sparse subnetwork at its initial weights, m ⊙ θ0 (Frankle & Carbin 2019, section 1).

    It is a value: nothing of it is changed in place.
    """

    def __init__(
        self,
        mask: Mask,
        start: State,
        provenance: dict[str, Any] | None = None,
        trained: State | None = None,
        *,
        drawn: Start | None = None,
    ) -> None:
        """`start` is a whole `state_dict`, zero where weights are pruned; so is `trained`, the weights that training
        from there led to. `provenance` says where it came from, as JSON values. `drawn` describes the network, and
        how its initial weights are drawn, if that is known."""
        self._mask = mask
        self._start: State | None = start
        self._provenance = {} if provenance is None else provenance
        self._trained = trained
        self._drawn = drawn
        self._digest: str | None = None  # of a start that is yet to be drawn, or was
        self._stored: Stored | None = None

    @property
    def mask(self) -> Mask:
        """Which weights are left."""
        return self._mask

    @property
    def start(self) -> State:
        """A whole `state_dict`: the initial weights, zero where they are pruned.

        Where the file holds them by seed, they are drawn when they are first asked for. Raises `InputError` where
        this machine draws other weights than the ticket's.
        """
        if self._start is None:
            assert self._drawn is not None
            start = drawing.draw(self._drawn, self.mask)
            if files.digest(values(start, self.mask)) != self._digest:
                raise InputError(
                    "this machine, or this version of torch, draws other initial weights than the ticket's; where it "
                    'was made, save it by value: ticket.save(path, start="value")'
                )
            self._start = start
        return self._start

    @property
    def provenance(self) -> dict[str, Any]:
        """Where it came from, as JSON values: the recipe, the run that trained it, its figures, versions."""
        return self._provenance

    @property
    def trained(self) -> State | None:
        """A whole `state_dict`: the weights that training led to, zero where they are pruned; None where the ticket
        has none. From a file, its floating-point numbers are float32, whatever they are stored in."""
        return self._trained

    @property
    def drawn(self) -> Start | None:
        """What describes its network, and how its initial weights are drawn; None where nobody noted it."""
        return self._drawn

    @property
    def stored(self) -> Stored | None:
        """How the file that it was loaded from holds it; None of a ticket that was not loaded."""
        return self._stored

    def __repr__(self) -> str:
        return f"Ticket({self.mask})"

    def into(self, network: Module, *, trained: bool = False) -> Module:
        """Load the ticket into a network of the same architecture, in place, and return it: its initial weights, or
        those that training led to.

        Raises `InputError` when names or shapes differ, or the ticket has no trained weights.
        """
        weights = self._weights(trained)
        state = network.state_dict()
        own = {name: tuple(tensor.shape) for name, tensor in state.items() if isinstance(tensor, Tensor)}
        ours = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        if own != ours:
            name = next(n for n in [*ours, *own] if own.get(n) != ours.get(n))
            raise InputError(
                f"this ticket is for another architecture: {name} is {ours.get(name, 'missing')} in the ticket "
                f"and {own.get(name, 'missing')} in the network"
            )
        network.load_state_dict(weights, strict=len(own) == len(state))  # or it has an extra state of its own
        return network

    def network(self, *, trained: bool = True) -> nn.Module:
        """The network itself, on the CPU and in evaluation mode, with the trained weights or the initial ones.

        Raises `InputError` for networks that are not tombola's own: nothing is imported because a file says so.
        """
        self._weights(trained)
        if self.drawn is None:
            raise InputError("this ticket does not say what network it is of: give the network: ticket.into(network)")
        return self.into(drawing.network_of(self.drawn.network, self.mask), trained=trained).eval()

    def _weights(self, trained: bool) -> State:
        if not trained:
            return self.start
        if self.trained is None:
            raise InputError("this ticket has no trained weights: it was saved without them")
        return self.trained

    def save(self, path: str | Path, *, start: Kept = "auto", trained: Precision = "fp32") -> None:
        """Write the ticket to one safetensors file: docs/ticket-file.md has the format.

        `start` says how the initial weights are held: by `seed`, that is, by what they are drawn with, which takes
        hardly any room but gives them back only where torch draws the same numbers; by `value`; or `auto`: by seed
        where that is possible here. `trained` is the precision of trained weights, if there are any.

        Raises `InputError` for what cannot be saved so: by seed, weights that are not those that `drawn` describes;
        trained weights beyond what the precision can hold.
        """
        for option, value, known in (
            ("start", start, ("auto", "seed", "value")),
            ("trained", trained, (*PRECISIONS, "none")),
        ):
            if value not in known:
                raise unknown(f"way to save {option}", str(value), known)
        digest = None if start == "value" else self._seeded(must=start == "seed")
        parts = Parts(
            self.mask,
            self.start if digest is None else None,
            digest,
            self.drawn,
            None if trained == "none" else self.trained,
            "none" if self.trained is None else trained,
            self.provenance,
        )
        files.write_tensors(Path(path), ticket_file.to_tensors(parts), {"format": FORMAT})

    def _seeded(self, must: bool) -> str | None:
        """What stands for the initial weights where drawing gives them back; None where it does not."""
        if self._digest is not None:
            return self._digest
        try:
            if self.drawn is None:
                raise InputError('the ticket does not say how its initial weights are drawn; should be "value"')
            digest = files.digest(values(drawing.draw(self.drawn, self.mask), self.mask))
            if digest != files.digest(values(self.start, self.mask)):
                raise InputError('drawing does not give the initial weights of this ticket; should be "value"')
        except InputError as error:
            if must:
                raise InputError(f"start: {error}") from error
            return None
        return digest

    @classmethod
    def load(cls, path: str | Path) -> Ticket:
        """Read a ticket file. Nothing in it is executed, and nothing that it names is imported.

        Raises `InputError` when there is no such file, it is damaged, or it is no ticket.
        """
        try:
            parts, size = ticket_file.read(Path(path))
            if parts.digest is not None:
                assert parts.drawn is not None
                drawing.check_drawable(parts.drawn, parts.mask)
        except FileNotFoundError:
            raise InputError(f"there is no ticket file {path}") from None
        except InputError as error:
            raise InputError(f"the ticket {path} cannot be used: {one_line(error)}") from error
        except (DamagedFile, OSError) as error:
            raise InputError(str(error)) from error
        ticket = cls(parts.mask, parts.start or {}, parts.provenance, parts.trained, drawn=parts.drawn)
        if parts.digest is not None:
            ticket._start, ticket._digest = None, parts.digest
        kept: Literal["seed", "value"] = "value" if parts.digest is None else "seed"
        ticket._stored = Stored(size, kept, parts.precision, parts.format)
        return ticket
