"""SearchCallback: what the callbacks of all frameworks show of their search."""

from __future__ import annotations

import logging

from tombola.integrations.in_loop_search import InLoopSearch, LevelMetrics
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError

_log = logging.getLogger(__name__)


class SearchCallback:
    """A callback that searches for a ticket during a training."""

    _running: InLoopSearch | None = None

    @property
    def ticket(self) -> Ticket:
        """The sparsest ticket so far. Raises `InputError` if there is none yet."""
        return self._active.ticket

    def ticket_at(self, level: int) -> Ticket:
        """The ticket of this level. Raises `InputError` if there is none yet."""
        return self._active.ticket_at(level)

    @property
    def levels(self) -> list[LevelMetrics]:
        """The finished levels, with the last metrics of each."""
        return self._active.levels

    @property
    def _active(self) -> InLoopSearch:
        if self._running is None:
            raise InputError("the search has not begun: add this callback to a Trainer, and train")
        return self._running

    def _finish(self, warn: bool) -> None:
        """Release the network at the end of training. With `warn`, warn about an unfinished search."""
        search = self._active
        search.finish()
        if warn and not search.complete:
            _log.warning(
                "training ended in level %d of %d: the search is not finished", search.level, search.config.levels
            )
