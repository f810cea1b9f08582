"""Streams and events: all work is done at once and in order, so they only wait."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from tests.support.pretended_cuda.waits import Waits


class PretendedStream:
    def __init__(self, waits: Waits, device: torch.device) -> None:
        self.device = device
        self._waits = waits

    def wait_stream(self, other: object) -> None:
        pass

    def wait_event(self, event: object) -> None:
        pass

    def record_event(self, event: PretendedEvent | None = None) -> PretendedEvent:
        return event or PretendedEvent(self._waits)

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        self._waits.note("Stream.synchronize")

    def is_capturing(self) -> bool:
        return self._waits.capturing


class PretendedEvent:
    def __init__(self, waits: Waits) -> None:
        self._waits = waits

    def record(self, stream: object = None) -> None:
        pass

    def wait(self, stream: object = None) -> None:
        pass

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        self._waits.note("Event.synchronize")

    def elapsed_time(self, end: object) -> float:  # noqa: ARG002
        """Milliseconds; work takes none."""
        return 1e-3


class CurrentStream:
    """The stream of the innermost `torch.cuda.stream`, else the default one of the current device."""

    def __init__(self, waits: Waits, current_device: Callable[[], torch.device]) -> None:
        self._waits = waits
        self._current_device = current_device
        self._entered: list[PretendedStream] = []
        self._defaults: dict[torch.device, PretendedStream] = {}

    def new(self, device: object = None, **_: object) -> PretendedStream:
        return PretendedStream(self._waits, self._current_device() if device is None else torch.device(device))

    def get(self, device: object = None) -> PretendedStream:
        default = self.new(device)
        return self._entered[-1] if self._entered else self._defaults.setdefault(default.device, default)

    @contextlib.contextmanager
    def entered(self, stream: PretendedStream | None) -> Iterator[None]:
        before = list(self._entered)
        self.enter(stream)
        try:
            yield
        finally:
            self._entered = before

    def enter(self, stream: PretendedStream | None) -> None:
        """Make a stream the current one, for good."""
        if stream is not None:
            self._entered.append(stream)
