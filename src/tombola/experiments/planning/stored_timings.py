"""The times of trainings in a store, whichever experiment they belong to."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import safetensors
from pydantic import ValidationError

from tombola.experiments.planning.run_costs import Load, RunCosts
from tombola.pruning.mask import Mask
from tombola.runs.run import Run
from tombola.runs.store import Store

MOST = 300
"""How many entries are looked at, the newest."""


def add_stored_timings(
    costs: RunCosts,
    store: Store,
    runs: Iterable[Run],
    is_comparable: Callable[[str], bool],
    data_dir: str | Path | None = None,
) -> None:
    """Add to `costs` the times of stored trainings of the kinds and the data of `runs`, of engines that are
    comparable. Only the beginnings of the newest files are read."""
    runs = list(runs)
    data = {run.data.digest: run.data for run in runs}
    wanted = {Load.of(run, data_dir).kind for run in runs}
    for about, density in _newest(store.folder) if runs else ():
        described = about["run"]
        ours = data.get(described.get("data", {}).get("digest"))
        if ours is None or about["measures"]["diverged"] or not is_comparable(about["engine"]):
            continue
        # A description has no paths; arrays of the same digest are the same data.
        theirs = described | {"mask": Mask({}), "data": described["data"] | {"name": ours.name}}
        try:
            load = Load.of(Run.model_validate(theirs, strict=False), data_dir)._replace(density=density)
        except ValidationError:  # of another version
            continue
        if load.kind in wanted:
            costs.add(load, about["seconds"])


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it is gone
        return 0.0


def _newest(folder: Path) -> Iterator[tuple[dict[str, Any], float]]:
    """What the newest outcomes say of themselves, and the fraction of weights that they keep."""
    for path in heapq.nlargest(MOST, folder.glob("runs/*/*.safetensors"), key=_modified):
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about = json.loads(json.loads((file.metadata() or {})["tombola"])["about"])
                names = [name for name in file.keys() if name.startswith("kept/")]  # noqa: SIM118 - not a dict
                kept = sum(file.get_slice(name).get_shape()[0] for name in names)
                bits = sum(8 * file.get_slice(f"mask/{name[5:]}").get_shape()[0] for name in names)
        except (OSError, safetensors.SafetensorError, ValueError, LookupError):  # damaged: `get` will say so
            continue
        if {"run", "engine", "seconds", "measures"} <= about.keys():
            yield about, kept / bits if bits else 1.0
