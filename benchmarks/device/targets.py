"""What should be reached on a datacentre GPU, such as an H100 or H200, and what was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks.device.parts import Row

Results = dict[str, dict[str, Any]]
"""By part."""


class Target(NamedTuple):
    """A number and its bound."""

    what: str
    part: str
    number: Callable[[Row], float | None]
    """The number in a row of the part's table, if it is there."""
    bound: float
    at_most: bool = False


def of_256(name: str, *precisions: str) -> Callable[[Row], float | None]:
    """A column of the stack of 256 runs."""
    return lambda row: row.get(name) if row.get("size") == 256 and row.get("precision") in precisions else None


TARGETS = [
    Target("256 stacked, times as fast as one by one, plain, fp32", "speed", of_256("ratio_to_plain", "fp32"), 100),
    Target("256 stacked, share of the bandwidth", "speed", of_256("share_of_bandwidth", "fp32", "tf32"), 0.5),
    Target("the first release, minutes", "release", lambda row: row.get("all, minutes"), 60, at_most=True),
    Target(
        "waits of the host in an interval's training",
        "beside",
        lambda row: row["value"] if row["what"] == "waits of the host: training" else None,
        0,
        at_most=True,
    ),
    Target(
        "hold, compiled, bf16, times as long as dense",
        "hold",
        lambda row: row["ratio"] if row["compiled"] and row["precision"] == "bf16" else None,
        1.01,
        at_most=True,
    ),
]


def targets(results: Results) -> list[Row]:
    """For each target the best that was measured, and whether that is enough; both are None if nothing was."""
    rows = []
    for target in TARGETS:
        best = (min if target.at_most else max)(numbers(target, results), default=None)
        reached = None if best is None else best <= target.bound if target.at_most else best >= target.bound
        limit = f"at {'most' if target.at_most else 'least'} {target.bound}"
        rows.append({"target": target.what, "limit": limit, "measured": best, "reached": reached})
    return rows


def numbers(target: Target, results: Results) -> Iterator[float]:
    """What was measured of it."""
    for row in results.get(target.part, {}).get("rows", []):
        if (number := target.number(row)) is not None:
            yield number
