"""The networks of our own zoo, small."""

from __future__ import annotations

import torch

from tests.support.architectures.architecture import Factory, Made, seeded
from tests.support.zoo_networks import CIFAR, SMALL, build_network


def _of_zoo(name: str, **options: object) -> Factory:
    def made() -> Made:
        return build_network(name, **SMALL[name], **options), torch.randn(2, *CIFAR)  # type: ignore[arg-type]

    made.__name__ = "_".join(["zoo", name.replace("-", "_"), *map(str, options.values())])
    return seeded(made)


ZOO: list[Factory] = [*map(_of_zoo, SMALL), _of_zoo("resnet-20", shortcut="identity")]
