"""Provenance: where a ticket comes from, according to its file; validated, and turned back into runs.

The provenance is untrusted. Its configuration is turned into the runs that the experiment made, and the rest of the
provenance must agree with these runs.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from tombola.experiments.custom_config import CustomConfig
from tombola.experiments.recipe import Recipe, parse_config
from tombola.tickets.claim import Provenance, TicketClaim
from tombola.tickets.custom_claim import custom_claim
from tombola.tickets.origin import own_training
from tombola.tickets.recipe_claim import recipe_claim
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError
from tombola.utils.text import printable


def read_claim(
    path: str | Path, data_dir: str | Path | None = None, trust: bool = False, settings: object = None
) -> TicketClaim:
    """Read a ticket file and the runs that its provenance describes; data is searched in `data_dir` first. `settings`
    are the settings that were passed to `find_ticket`.

    Networks by import path and from timm, and training functions, are code that the file names. They are imported
    only with `trust`. Raises `InputError` if the file is not a ticket, if its provenance is incomplete, inconsistent
    or makes no claim that can be verified, or if the data or code here differs from what the ticket was made with.
    """
    ticket = Ticket.load(path)
    try:
        return _claim(Path(path), ticket, data_dir, trust, settings)
    except InputError as error:
        raise InputError(printable(f"{path}: {error}")) from error  # the message may quote the file


def _claim(path: Path, ticket: Ticket, data_dir: str | Path | None, trust: bool, settings: object) -> TicketClaim:
    provenance = _provenance(ticket)
    config = parse_config(provenance.recipe, source="its recipe")
    if isinstance(config, CustomConfig):
        return custom_claim(path, ticket, provenance, config, trust, settings)
    assert isinstance(config, Recipe)
    return recipe_claim(path, ticket, provenance, config, data_dir, trust)


def _provenance(ticket: Ticket) -> Provenance:
    if "recipe" not in ticket.provenance and (train := own_training(ticket.provenance)) is not None:
        raise InputError(
            f"it was trained by {train}, which is not in the file: to verify it, call find_ticket or train with the "
            "callback again, with another seed"
        )
    try:
        return Provenance.model_validate(ticket.provenance)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        where, message = ".".join(map(str, found["loc"])), found["msg"].removeprefix("Value error, ")
        what = f'"{where}" is missing' if found["type"] == "missing" else f"{where or 'it'}: {message}"
        raise InputError(f"its provenance is incomplete: {what}") from None
