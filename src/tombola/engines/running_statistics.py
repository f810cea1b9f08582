"""Running statistics of normalisation layers, recomputed for a network whose weights are an average."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from tombola.engines.augmentation import Augmentation
from tombola.engines.precision import autocast
from tombola.pruning.normalisation import running_norms
from tombola.runs.run import Run
from tombola.zoo.datasets.split import Split


def recompute_statistics(network: nn.Module, run: Run, split: Split, device: torch.device) -> nn.Module:
    """Recompute the running means and variances of `network`, for as long as `Trained.statistics` of `run` says;
    return `network`, which is on the CPU before and after.

    Each statistic is the mean over the first batches of the run, augmented as in training, with weights as they are
    (Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", section 3.2).
    `torch.optim.swa_utils.update_bn` does the same for batch norm alone, and draws dropout.
    """
    trained, norms = run.start.trained, running_norms(network)
    batch_size = run.training.batch_size
    count = 0 if trained is None else trained.statistics.iterations_of(len(split.train), batch_size)
    if not count or not norms:
        return network
    train = split.train.to(device)
    order = train.order(run.seed, batch_size)
    train.read_ahead(order, 0, count, count)
    augmentation = Augmentation.of([run], [split], device)
    momenta = [norm.momentum for norm in norms]
    training = network.training
    network.to(device).eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    with torch.no_grad(), _one_thread(), autocast(run.training.precision, device):
        for iteration, (x, _) in enumerate(train.batches(order.batches(0, count))):
            if augmentation is not None:
                x = augmentation(x, augmentation.choices(iteration, 1)[0])
            for norm in norms:  # instance norm has no cumulative average of its own
                norm.momentum = 1 / (iteration + 1)
            network(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.train(training).cpu()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums may depend on the number of threads, and compiled trainings do not limit it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
