"""Ticket: a mask, the weights it starts from, and where it came from; one file on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from tombola import packing
from tombola.errors import DamagedFile, InputError
from tombola.files import read_tensors, write_tensors
from tombola.mask import Mask, State

FORMAT = 1
"""The version of the file format."""

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Ticket:
    """A sparse subnetwork at its initial weights, m ⊙ θ0 (Frankle & Carbin 2019, section 1)."""

    mask: Mask
    start: State
    """A whole `state_dict`: the initial weights, zero where they are pruned."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where it came from, as JSON values: the recipe, the run that trained it, its figures, versions."""

    def __repr__(self) -> str:
        return f"Ticket({self.mask})"

    def into(self, network: Module) -> Module:
        """Load the ticket into a network of the same architecture, in place, and return it.

        Raises `InputError` when names or shapes differ.
        """
        state = network.state_dict()
        own = {name: tuple(tensor.shape) for name, tensor in state.items() if isinstance(tensor, Tensor)}
        ours = {name: tuple(tensor.shape) for name, tensor in self.start.items()}
        if own != ours:
            name = next(n for n in [*ours, *own] if own.get(n) != ours.get(n))
            raise InputError(
                f"this ticket is for another architecture: {name} is {ours.get(name, 'missing')} in the ticket "
                f"and {own.get(name, 'missing')} in the network"
            )
        network.load_state_dict(self.start, strict=len(own) == len(state))  # or it has an extra state of its own
        return network

    def save(self, path: str | Path) -> None:
        """Write the ticket to one safetensors file: masks in bits, kept weights only, provenance in its header."""
        about = {"format": FORMAT, "provenance": self.provenance}
        write_tensors(Path(path), packing.pack(self.start, self.mask), about)

    @classmethod
    def load(cls, path: str | Path) -> Ticket:
        """Read a ticket file. Nothing in it is executed.

        Raises `InputError` when there is no such file, it is damaged, or it is no ticket.
        """
        try:
            tensors, about = read_tensors(Path(path))
            if about.get("format") != FORMAT:
                raise DamagedFile(f"{path} is not a ticket of a format this version reads")
            start, mask = packing.unpack(tensors)
        except FileNotFoundError:
            raise InputError(f"there is no ticket file {path}") from None
        except (DamagedFile, OSError) as error:
            raise InputError(str(error)) from error
        return cls(mask, start, about["provenance"])
