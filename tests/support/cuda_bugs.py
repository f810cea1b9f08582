"""Bugs of a kind that only a CUDA device shows, to be planted; what fails with each of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.support.cuda_pruning import check_hold, pruned_on
from tests.support.cuda_trainings import check_eager, check_learner, check_paused, check_stack
from tests.support.pretended_cuda import PretendedCuda

Case = Callable[[PretendedCuda, Path], object]


def _stack(name: str) -> Case:
    return lambda _, folder: check_stack(name, folder)


def _without_indices_of_the_host(score: str) -> Case:
    """Pruning that uses no index on the CPU for a tensor of the device, which the host would send each time."""

    def check(gpu: PretendedCuda, _: Path) -> None:
        pruned_on("cuda", "cuda", score)
        whats = {wait.what for wait in gpu.waits.noted}
        assert "index on the CPU" not in whats, whats

    return check


def _plain(check: Callable[[], object]) -> Case:
    return lambda *_: check()


CASES: dict[str, Case] = {
    "adam": _stack("adam"),
    "cosine with warm-up": _stack("cosine with warm-up"),
    "augmented": _stack("augmented"),
    "learner": _plain(partial(check_learner, "adam")),
    "paused": _plain(check_paused),
    "eager": _plain(partial(check_eager, "adam")),
    "hold": _plain(partial(check_hold, {"fused": True})),
    "start on the CPU": _plain(partial(pruned_on, "cuda", "cpu", "distance")),
    "magnitude": _plain(partial(pruned_on, "cuda", "cuda", "magnitude")),
    "synflow": _plain(partial(pruned_on, "cuda", "cuda", "synflow")),
    "ranks": _without_indices_of_the_host("large_init_large_final"),
}
"""Each passes without a planted bug."""

MIXED = "same device"
"""Tensors of two devices."""
WAITS = "synchronizing|index on the CPU"
"""The host waits where it should not."""
NO_GRAPH = "no CUDA graph is used"
"""A warning that capturing failed."""
STALE = None
"""A graph reads or writes tensors that nobody uses any more."""


class Bug(NamedTuple):
    name: str
    module: str
    old: str
    new: str
    case: str
    seen: str | None
    """What the error says; None for an assertion."""


_ENSEMBLE = "tombola.engines.stacked.ensemble"
_OPTIMIZERS = "tombola.engines.optimizers"
_AUGMENTATION = "tombola.engines.augmentation"
_TRANSFERS = "tombola.utils.transfers"
_EAGER = "tombola.engines.eager"
_EXAMPLES = "tombola.zoo.datasets.example_set"
_BITMASK = "tombola.pruning.bitmask"
_CHANGE = "tombola.pruning.scores.change"
_INPUTS = "tombola.pruning.scores.inputs"
_SYNFLOW = "tombola.pruning.scores.synflow"
_RANKING = "tombola.pruning.ranking"
_MASK = "tombola.pruning.mask"

BUGS = [
    Bug("masks of a stack on the CPU", _BITMASK, ".copy_(bits)", ".copy_(bits).cpu()", "adam", WAITS),
    Bug("rows on the CPU", _ENSEMBLE, "rows.to(device), (y_offsets", "rows, (y_offsets", "adam", MIXED),
    Bug("label offset on the CPU", _ENSEMBLE, "x_offsets).to(device))", "x_offsets))", "adam", MIXED),
    Bug("item() in the step", _ENSEMBLE, "+= means.detach()", "+= means.sum().item()", "adam", WAITS),
    Bug(
        "tolist() in an evaluation",
        _ENSEMBLE,
        "losses.sum(1)",
        "losses.sum(1) + 0 * losses.sum().item()",
        "adam",
        NO_GRAPH,
    ),
    Bug("orders not pinned", _TRANSFERS, "tensor.pin_memory()", "tensor", "adam", WAITS),
    Bug("losses bound anew", _ENSEMBLE, "_sums += means", "_sums = self.loss_sums + means", "adam", STALE),
    Bug(
        "best weights bound anew",
        _ENSEMBLE,
        "torch.where(which.view(-1, *[1] * (best.ndim - 1)), current, best, out=best)",
        "self.best[name] = torch.where(which.view(-1, *[1] * (best.ndim - 1)), current, best)",
        "learner",
        STALE,
    ),
    Bug(
        "graphs kept over a load",
        _ENSEMBLE,
        "state, self.optimizer, self.device)\n        self.graphs = CudaGraphs(self.device)",
        "state, self.optimizer, self.device)",
        "learner",
        STALE,
    ),
    Bug(
        "choices bound, not copied",
        _ENSEMBLE,
        "self.choice.copy_(choices[index].view_as(self.choice))",
        "self.choice = choices[index].view_as(self.choice)",
        "augmented",
        STALE,
    ),
    Bug("choices not pinned", _TRANSFERS, "tensor.pin_memory()", "tensor", "augmented", WAITS),
    Bug("pixels on the CPU", _AUGMENTATION, "(width, device=x.device)", "(width)", "augmented", MIXED),
    Bug(
        "learning rate on the CPU",
        _OPTIMIZERS,
        ", device=next(iter(parameters.values())).device)",
        ")",
        "cosine with warm-up",
        STALE,
    ),
    Bug(
        "learning rate bound anew",
        _OPTIMIZERS,
        'group["lr"].fill_(rate)',
        'group["lr"] = torch.full_like(group["lr"], rate)',
        "cosine with warm-up",
        STALE,
    ),
    Bug(
        "learning rate a number",
        _OPTIMIZERS,
        "if capturable and has_lr_schedule(training)",
        "if False",
        "cosine with warm-up",
        STALE,
    ),
    Bug(
        "loaded optimizer on the CPU",
        _OPTIMIZERS,
        "_laid_out_for(parameter, value)",
        "value.clone()",
        "paused",
        MIXED,
    ),
    Bug("eager: batches on the CPU", _EXAMPLES, "to_device(order, self.y.device)", "order", "eager", WAITS),
    Bug("eager: orders not pinned", _TRANSFERS, "tensor.pin_memory()", "tensor", "eager", WAITS),
    Bug("eager: sums on the CPU", _EAGER, "torch.float64, device=self.device)", "torch.float64)", "eager", MIXED),
    Bug("hold: bits on the CPU", _BITMASK, ".copy_(bits)", ".copy_(bits).cpu()", "hold", MIXED),
    Bug("hold: mask sent at each step", _BITMASK, "self._key != key", "True", "hold", WAITS),
    Bug("ranks among a mask on the CPU", _CHANGE, "mask[name].to(final.device)", "mask[name]", "ranks", WAITS),
    Bug(
        "initial weights on the CPU",
        _CHANGE,
        ".detach().to(final), final)",
        ".detach(), final)",
        "start on the CPU",
        MIXED,
    ),
    Bug("inputs masked on the CPU", _INPUTS, "mask[name].to(weight.device)", "mask[name]", "magnitude", MIXED),
    Bug("scores on the device", _RANKING, ".detach().cpu().flatten()", ".flatten()", "magnitude", MIXED),
    Bug("mask on the CPU", _MASK, "~kept.to(parameters[name].device)", "~kept", "magnitude", MIXED),
    Bug("ones on the CPU", _SYNFLOW, "torch.ones_like(x[:1])", "torch.ones(x[:1].shape)", "synflow", MIXED),
]
