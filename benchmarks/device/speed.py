"""How fast stacks train on a device, and where the time of a step goes."""

from __future__ import annotations

from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler

from benchmarks import ceilings as reached
from benchmarks import gpu, stacks
from benchmarks.common import FIRST_STEPS, wait
from benchmarks.device.parts import Findings, Place, Row
from tombola.runs.run import Precision
from tombola.zoo.datasets.split import Split

SECONDS = 120
"""After so many the table of speeds ends."""


def ceilings(place: Place) -> Findings:
    """Copies and products of matrices."""
    runs, copied = (2, 2**20) if place.rehearsal else (256, reached.COPIED)
    return Findings(reached.ceilings(runs, place.device, copied))


def speed(place: Place) -> Findings:
    """The table of `benchmarks.gpu`, as much of it as there is time for."""
    sizes = (1, 2) if place.rehearsal else gpu.SIZES
    runs = [stacks.made_up_run(precision=precision) for precision in gpu.PRECISIONS]
    end, found = place.left - SECONDS, list[Row]()
    for row in gpu.rows(runs, made_up_split(place), sizes, place.device, bandwidth(place), **work(place)):
        found.append(row)
        if place.left < end:
            break
    return Findings(found, gpu.disagreements(found))


def first_release(place: Place) -> Findings:
    """The speed of its steps by density, and its projected minutes."""
    precisions: tuple[Precision, ...] = ("fp32",) if place.rehearsal else ("fp32", "tf32")
    size = 2 if place.rehearsal else gpu.GRID_SIZE
    split = made_up_split(place)
    steps, minutes = gpu.first_release(precisions, size, split, place.device, bandwidth(place), **work(place))
    return Findings(steps + minutes, gpu.disagreements(steps))


def made_up_split(place: Place) -> Split:
    """Of MNIST's size; in a rehearsal small."""
    return stacks.made_up_split(train=2_000, validation=500) if place.rehearsal else stacks.made_up_split()


def bandwidth(place: Place) -> float:
    """That of copies on the device."""
    return reached.copy_bandwidth(place.device, 2**20 if place.rehearsal else reached.COPIED)


def work(place: Place) -> dict[str, int]:
    """Of each measurement."""
    return {"steps": 5, "turns": 1} if place.rehearsal else {"steps": 200, "turns": 3}


def profile(place: Place) -> Findings:
    """The kernels that take most time in a step."""
    size, steps = (2 if place.rehearsal else 256), 10
    activity = ProfilerActivity.CUDA if place.is_cuda else ProfilerActivity.CPU
    with stacks.as_engines_train("fp32", place.device), stacks.without_graphs():
        learner = stacks.trained(size, stacks.made_up_split(train=2_000, validation=500), place.device)
        orders = stacks.random_orders(size, steps, stacks.ADAM["batch_size"], 2_000)
        wait(place.device)
        with profiler(activities=[activity]) as recorded:
            learner.train(orders, FIRST_STEPS)
            wait(place.device)
    times = {
        event.key: event.self_device_time_total if place.is_cuda else event.self_cpu_time_total
        for event in recorded.key_averages()
    }
    whole = sum(times.values())
    if not whole:
        return Findings([], ["the profiler recorded no kernels"])
    longest = sorted(times.items(), key=lambda item: -item[1])[:16]
    rows: list[Row] = [
        {"kernel": name[:70], "us a step": each / steps, "share": f"{each / whole:.1%}"} for name, each in longest
    ]
    return Findings([*rows, {"kernel": f"all {len(times)}", "us a step": whole / steps, "share": "100%"}])
