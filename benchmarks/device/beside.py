"""What is beside the steps of a stack: building, evaluation, checkpoints, memory, and waits of the host."""

from __future__ import annotations

import functools
import gc
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import stacks
from benchmarks.common import seconds_per_call, wait
from benchmarks.device.parts import Findings, Place, Row
from tombola.engines.training_loop import TrainingLoop
from tombola.runs.initial_state import masked_network
from tombola.utils.files import write_tensors
from tombola.zoo.datasets.split import Split

GIB = 2**30
INTERVAL = 100
"""Iterations between two evaluations."""
EVALUATION_WAITS = 2
"""Waits of the host at an evaluation: for the sums of the training losses, and for the scores."""
LEFT = 0.05
"""The share of a stack's memory that may stay allocated after it, by libraries."""


def beside(place: Place) -> Findings:
    """All of it; memory and waits only on a GPU."""
    size = 2 if place.rehearsal else 1024
    split = stacks.made_up_split(train=2_000, validation=500) if place.rehearsal else stacks.made_up_split()
    run = stacks.made_up_run()
    building = seconds_per_call(lambda: masked_network(run), stacks.CPU, calls=3, turns=3)
    found = Findings([{"what": "build a network", "value": 1e3 * building, "unit": "ms"}])
    with stacks.as_engines_train("fp32", place.device):
        found.rows.extend(times(size, split, place.device))
        if place.is_cuda:
            memory(size, split, place.device, found)
            waits_of_host(place.device, found)
    return found


def times(size: int, split: Split, device: torch.device) -> list[Row]:
    """Of a stack: how long it takes to make, to evaluate and to save."""
    began = time.perf_counter()
    learner = stacks.trained(size, split, device)
    wait(device)
    rows: list[Row] = [{"what": f"a stack of {size}: make it", "value": time.perf_counter() - began, "unit": "s"}]
    for name in ("validation", "train"):
        each = seconds_per_call(functools.partial(learner.evaluate, name), device, calls=1, turns=3)
        examples = learner.examples[name].rows.shape[1]
        rows.append({"what": f"evaluate {examples:,} examples", "value": 1e3 * each, "unit": "ms"})
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        state = learner.state_dict()
        wait(device)
        rows.append({"what": "take its state", "value": time.perf_counter() - began, "unit": "s"})
        began = time.perf_counter()
        write_tensors(Path(folder) / "checkpoint.safetensors", state, {})
        rows.append({"what": "write it as a checkpoint", "value": time.perf_counter() - began, "unit": "s"})
    rows.append({"what": "its state", "value": sum(tensor.nbytes for tensor in state.values()) / 1e9, "unit": "GB"})
    return rows


def memory(size: int, split: Split, device: torch.device, found: Findings) -> None:
    """Of a stack on the device: what it holds, the peak, and what is left of it after its last reference is gone."""
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    learner = stacks.trained(size, split, device)
    learner.evaluate("validation")
    held = {
        "memory held": torch.cuda.memory_allocated(device) - before,
        "reserved": torch.cuda.memory_reserved(device),
        "peak": torch.cuda.max_memory_allocated(device),
    }
    gc.disable()
    try:
        del learner
        left = torch.cuda.memory_allocated(device) - before
    finally:
        gc.enable()
    found.rows.extend({"what": name, "value": each / GIB, "unit": "GiB"} for name, each in held.items())
    found.rows.append({"what": "left after it", "value": left / GIB, "unit": "GiB"})
    if left > LEFT * held["memory held"]:
        found.wrong.append(f"{left / GIB:.2f} GiB stay allocated after a stack, without the garbage collector")


def waits_of_host(device: torch.device, found: Findings) -> None:
    """How often the host waits for the device: never between evaluations, and at each as often as it must."""
    run = stacks.made_up_run(evaluate_every=stacks.iterations(INTERVAL))
    split = stacks.made_up_split(train=2_000, validation=500)
    loop = TrainingLoop([run] * 4, stacks.stacked([run] * 4, split, device), split.train)
    orders = stacks.random_orders(4, INTERVAL, run.training.batch_size, split.train)

    def whole_interval() -> None:
        end = loop.iteration + INTERVAL
        while loop.iteration < end:
            loop.advance()

    for _ in range(5):
        whole_interval()  # all graphs are captured after a few evaluations
    cases = {
        "training": (lambda: loop.learner.train(orders, 0), 0),
        "an interval": (whole_interval, EVALUATION_WAITS),
    }
    for name, (call, most) in cases.items():
        places = waits(call)
        found.rows.append({"what": f"waits of the host: {name}", "value": len(places), "unit": ""})
        if len(places) > most:
            found.wrong.append(f"the host waits {len(places)} times in {name}: {', '.join(sorted(set(places)))}")


def waits(call: Callable[[], None]) -> list[str]:
    """Where the host waits for the device in `call`: file and line."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [
        f"{Path(each.filename).name}:{each.lineno}"
        for each in caught
        if "called a synchronizing" in str(each.message)
    ]
