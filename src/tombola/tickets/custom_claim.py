"""The claim of a ticket that was found with the user's own functions, if these can be imported."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from tombola.engines import Engine
from tombola.engines.custom.engine import CustomEngine, CustomRun
from tombola.engines.custom.fingerprint import training_fingerprint
from tombola.engines.custom.model import CustomModel
from tombola.experiments.custom_config import CustomConfig
from tombola.experiments.custom_workload import CustomWorkload
from tombola.experiments.sections import AUTO, MARK
from tombola.pruning.options import PruningOptions
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.pruner import Pruner
from tombola.runs.run import BaseRun
from tombola.studies.request import Study
from tombola.studies.rewinding import train_to_mark, train_trunk
from tombola.tickets.claim import Provenance, TicketClaim, check_claimed, check_level, check_run, inconsistent
from tombola.tickets.ticket import Ticket
from tombola.tickets.user_code import import_named, named_functions
from tombola.utils.duration import Duration
from tombola.utils.errors import InputError


@dataclass(frozen=True)
class CustomClaim(TicketClaim):
    """A ticket that was found with the user's own functions, which train its runs."""

    config: CustomConfig
    workload: CustomWorkload
    dense: CustomRun
    trainer: CustomEngine
    fingerprint: str
    """The fingerprint of the functions on this machine."""
    parallel: ClassVar[bool] = False
    relative_tolerance: ClassVar[bool] = True

    @property
    def length(self) -> int:
        return (self.provenance.dense or self.provenance.measures).iterations

    @property
    def evaluation_interval(self) -> int:
        return self.dense.every or 1

    @property
    def end_figure(self) -> str | None:
        if self.trainer.evaluate is None:
            return None
        figures = self.provenance.measures.figures
        ends = [name for name in figures if name.startswith("validation_") and not name.endswith("_at_stop")]
        wanted = f"validation_{self.metric.name}"
        return wanted if wanted in ends else next(iter(ends), None)

    def engine(self, name: str, device: str, sharing: int = 1) -> Engine[Any]:  # noqa: ARG002 - there is one
        return self.trainer

    def trunk(self) -> Study[BaseRun]:
        if self.config.rewind.to == MARK:
            run, _ = yield from train_to_mark(self.dense)
            return run
        return (yield from train_trunk(self.dense, self.k))

    def measure_trained(self, device: str) -> float | None:  # noqa: ARG002 - the functions decide
        assert self.end_figure is not None
        network = self.workload.source.initial_network(self.dense.start)
        self.ticket.into(network, trained=True)
        return self.trainer.evaluate_network(network, self.dense).get(self.end_figure.removeprefix("validation_"))

    @property
    def code(self) -> str:
        return self.fingerprint

    @property
    def draws_anew(self) -> bool:
        return self.workload.source.draws_anew


def custom_claim(
    path: Path, ticket: Ticket, provenance: Provenance, config: CustomConfig, trust: bool, settings: object
) -> CustomClaim:
    """The runs as `find_ticket` made them. Raises `InputError` if the rest of the provenance does not agree."""
    check_claimed(config, provenance)
    stated = config.functions.fingerprint
    if stated is None:
        raise InputError(
            f"it was found within a training by {config.functions.train}, which is not in the file: to verify it, "
            "train with the callback again, with another seed"
        )
    metric = config.judged([provenance.measures])
    judged = metric.at_stop
    if metric.fraction and not metric.maximize:
        raise InputError(f"it makes no claim to verify: its {metric.name} is minimized")
    for measures in filter(None, (provenance.measures, provenance.dense)):
        if (figure := measures[judged]) is None or not math.isfinite(figure):
            raise InputError(f"its provenance is incomplete: {judged} is missing")
    functions = {role: import_named(role, name, trust) for role, name in named_functions(ticket).items()}
    train, evaluate, test = (functions.get(role) for role in ("train", "evaluate", "test"))
    tested = [] if test is None else [test]
    fingerprint = training_fingerprint(train, evaluate, settings, *tested)
    if stated and fingerprint != stated:
        raise InputError(
            "its functions are not those here: their code, or what they refer to, has changed; or find_ticket had "
            "`settings`, which read_claim(settings=...) needs too"
        )
    source = CustomModel(functions["model"])
    prunable, pruner = _pruned(config, source.initial_network(source.start(0)), ticket)
    workload = CustomWorkload.of(config, source, prunable, pruner or PruningOptions().pruner(prunable))
    dense, k = workload.dense(provenance.replicate), _rewound(config, provenance)
    if ticket.mask.shapes != dense.mask.shapes:
        raise InputError(f"its mask does not fit the network of {config.functions.model}")
    marked = config.rewind.to == MARK
    rest = dense.after(dense.until_mark() if marked else dense.until(k), begin=k) if marked or k else dense
    check_run(rest.masked(ticket.mask), provenance)
    if pruner is not None:
        check_level(pruner, provenance.level, dense.mask, ticket.mask)
    trainer = CustomEngine(source, train, evaluate, test)  # type: ignore[arg-type]
    return CustomClaim(path, ticket, provenance, config, workload, dense, k, trainer, fingerprint)


def _pruned(config: CustomConfig, network: nn.Module, ticket: Ticket) -> tuple[PrunableNetwork, Pruner | None]:
    """What is pruned, and how; None if a score or structure is an object, or if the units of the structure need an
    example that the file does not have."""
    search = config.search
    try:
        options = search.options
    except InputError:
        options = None
    if options is not None:
        try:
            prunable = options.prunable(network)
            return prunable, options.pruner(prunable)
        except InputError as error:
            if not str(error).startswith("example:"):
                raise
    known = [name for name, _ in network.named_parameters() if name in ticket.mask]
    plain = PruningOptions(search.levels, include=[*search.include, *known], leave_out=search.leave_out)
    return plain.prunable(network), None


def _rewound(config: CustomConfig, provenance: Provenance) -> int:
    """The iteration k; from the provenance if `train` decides it."""
    if isinstance(config.rewind.to, Duration):
        return config.rewind.to.iterations
    k = provenance.run.get("begin", 0)
    if not isinstance(k, int) or not 0 <= k < provenance.measures.iterations:
        raise inconsistent(f"run.begin is {k!r:.60}, and the training ends at {provenance.measures.iterations}")
    candidates = [length.iterations for length in config.stability.candidates] if config.stability else []
    if config.rewind.to == AUTO and k not in candidates:
        raise inconsistent(f"run.begin is {k}, and the candidates of its search are {candidates!r:.60}")
    return k
