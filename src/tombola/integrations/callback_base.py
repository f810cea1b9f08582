"""Searching: what every callback shows of its search."""

from __future__ import annotations

import logging

from tombola.integrations.in_loop_search import InLoopSearch, LevelMetrics
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError

_log = logging.getLogger(__name__)


class SearchCallback:
    """A callback that searches within the training it is given to."""

    _rounds: InLoopSearch | None = None

    @property
    def ticket(self) -> Ticket:
        """The sparsest ticket so far. Raises `InputError` where there is none yet."""
        return self._searching.ticket

    def ticket_at(self, level: int) -> Ticket:
        """The ticket of this level. Raises `InputError` where there is none yet."""
        return self._searching.ticket_at(level)

    @property
    def levels(self) -> list[LevelMetrics]:
        """The table of the levels that have ended, with what the framework had measured last by then."""
        return self._searching.levels

    @property
    def _searching(self) -> InLoopSearch:
        if self._rounds is None:
            raise InputError("this search has not begun: give it to a Trainer, and train")
        return self._rounds

    def _finish(self, aloud: bool) -> None:
        """Let go of the network when training ends; say `aloud` if that was too early."""
        rounds = self._searching
        rounds.finish()
        if not rounds.complete and aloud:
            _log.warning(
                "training ended in level %d of %d: the search is not finished", rounds.level, rounds.search.levels
            )
