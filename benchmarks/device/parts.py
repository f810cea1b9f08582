"""The parts of a run: each measures one thing, and none stops the others."""

from __future__ import annotations

import contextlib
import gc
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where the parts run, and how long."""

    device: torch.device
    rehearsal: bool
    """Everything is tiny: only that it runs is tested."""
    limit: float
    """Seconds from now; no part begins later than allows it to end."""
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.limit - (time.monotonic() - self.began)

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"


@dataclass(frozen=True)
class Findings:
    """What a part found: a table, and in words what is wrong."""

    rows: list[Row]
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """A part of the run."""

    name: str
    title: str
    seconds: float
    """How long it takes on a GPU, at most. It is skipped if less is left."""
    measure: Callable[[Place], Findings]


def perform(part: Part, place: Place) -> dict[str, Any]:
    """The result of a part as JSON values: its `rows` and what is `wrong`; or `failed`, with the traceback's end; or
    that it was `skipped`. Warnings that tombola logs, as where no CUDA graph could be captured, are wrong."""
    if place.left < part.seconds:
        return {"title": part.title, "skipped": f"{place.left:.0f} s are left, and it may take {part.seconds:.0f} s"}
    began = time.monotonic()
    with logged_warnings() as logged:
        try:
            findings = part.measure(place)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the others go on; a benchmark exits where sides differ
            result: dict[str, Any] = {"failed": f"{type(error).__name__}: {error}".partition("\n")[0]}
            result |= {"at": traceback.format_exc().splitlines()[-9:-1], "wrong": [*logged]}
        else:
            result = {"rows": findings.rows, "wrong": [*findings.wrong, *logged]}
    gc.collect()
    if place.is_cuda:
        with contextlib.suppress(RuntimeError):  # after an illegal access every call fails
            torch.cuda.empty_cache()
    return {"title": part.title, "seconds": time.monotonic() - began, **result}


def is_wrong(result: dict[str, Any]) -> bool:
    """Whether a part failed or found something wrong."""
    return "failed" in result or bool(result.get("wrong"))


@contextlib.contextmanager
def logged_warnings() -> Iterator[list[str]]:
    """The warnings that tombola logs within it; each once."""
    messages: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() not in messages:
                messages.append(record.getMessage())

    handler, logger = Handler(logging.WARNING), logging.getLogger("tombola")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
