"""Resources: what one training on a cluster is given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tombola.engines import AUTO
from tombola.utils.errors import InputError, unknown

NAMES = ("cpu", "gpu")

EXACT = 1e-4
"""Ray counts resources in steps of this size."""


@dataclass(frozen=True)
class Resources:
    """CPU cores, and GPUs or a share of one, for each training; None: for `for_device` to decide."""

    cpu: float = 1.0
    gpu: float | None = None

    @classmethod
    def parse(cls, given: Mapping[str, float] | Sequence[str]) -> Resources:
        """From `{"gpu": 0.25}` or `["gpu=0.25"]`. Raises `InputError` for other names, and for numbers that no
        training can be given."""
        if not isinstance(given, Mapping):
            given = dict(_name_and_number(setting) for setting in given)
        for name, number in given.items():
            if name not in NAMES:
                raise unknown("resource", name, NAMES)
            if not (isinstance(number, int | float) and EXACT <= number < math.inf):
                raise InputError(f"resources: {name} should be a positive number, not {number!r}")
        resources = cls(**given)
        if (resources.gpu or 0) > 1:
            raise InputError(f"resources: gpu should be at most 1, a training uses one GPU; not {resources.gpu:g}")
        return resources

    def for_device(self, device: str, engine: str, gpus: float) -> tuple[Resources, str]:
        """These resources, and the device, for `engine` on a cluster with so many `gpus`. Device `auto` is `cuda`
        where there are GPUs and the engine can use them. Raises `InputError` if device and resources contradict each
        other, or `device` is a certain GPU, which is Ray's to choose."""
        if device.startswith("cuda:"):
            raise InputError(f'device: on a cluster should be "cpu", "cuda" or "auto", not "{device}"')
        if device == AUTO:
            device = "cuda" if self.gpu or (gpus and engine != "sparse") else "cpu"
        if self.gpu and device == "cpu":
            raise InputError(f'resources: gpu={self.gpu:g} contradicts device "cpu"')
        return replace(self, gpu=self.gpu or float(device == "cuda")), device

    @property
    def sharing(self) -> int:
        """How many trainings share a GPU."""
        return int((1 + EXACT) / self.gpu) if self.gpu else 1

    def slots(self, cpus: float, gpus: float) -> int:
        """How many trainings a node with so many CPUs and GPUs takes at once."""
        by_cpu = int((cpus + EXACT) / self.cpu)
        return min(by_cpu, int(gpus) * self.sharing) if self.gpu else by_cpu

    def __str__(self) -> str:
        return ", ".join(f"{name}={number:g}" for name in NAMES if (number := getattr(self, name)))


def _name_and_number(setting: str) -> tuple[str, float]:
    name, _, number = setting.partition("=")
    try:
        return name.strip(), float(number)
    except ValueError:
        raise InputError(f'resources: should be NAME=NUMBER, such as gpu=0.25, not "{setting}"') from None
