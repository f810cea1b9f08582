"""State: what the parts of a pretended machine share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from tests.support.pretended_cuda.graphs import Graphs
from tests.support.pretended_cuda.placement import ANYWHERE, CPU, Placement
from tests.support.pretended_cuda.streams import CurrentStream
from tests.support.pretended_cuda.waits import Waits


class Operation(NamedTuple):
    name: str
    bytes: int
    """Of its tensors, each counted once."""


@dataclass
class State:
    devices: int
    placement: Placement
    waits: Waits = field(default_factory=Waits)
    operations: list[Operation] | None = None
    """Those done on a device, while they are listed."""
    current_device: int = 0
    making: torch.device | None = ANYWHERE
    """Where an operation without tensors puts its results."""

    def __post_init__(self) -> None:
        self.graphs = Graphs(self.placement, self.waits)
        self.streams = CurrentStream(self.waits, lambda: torch.device("cuda", self.current_device))

    def device(self, name: torch.device | str | int) -> torch.device:
        """The device of this name, with its index. Raises `RuntimeError` if it is missing."""
        device = torch.device("cuda", name) if isinstance(name, int) else torch.device(name)
        if device.type != "cuda":
            return CPU if device.type == "cpu" else device
        index = self.current_device if device.index is None else device.index
        if index >= self.devices:
            raise RuntimeError("CUDA error: invalid device ordinal")
        return torch.device("cuda", index)
