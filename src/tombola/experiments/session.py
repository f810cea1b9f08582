"""Session: when, where and by what runs of an experiment were trained. No result depends on it."""

from __future__ import annotations

import platform
from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import AwareDatetime, ConfigDict, NonNegativeInt

from tombola.utils.checkouts import commit_of, own_commit
from tombola.utils.frozen_model import FrozenModel
from tombola.utils.libraries import versions
from tombola.utils.workers import processor


class Session(FrozenModel):
    """One call that trained runs of an experiment, and the machine that made it."""

    model_config = ConfigDict(extra="ignore")

    began: AwareDatetime
    ended: AwareDatetime
    """When the results folder was last written."""
    trained: NonNegativeInt = 0
    """The number of runs that it trained."""
    processor: str
    system: str
    python: str
    versions: dict[str, str] = {}
    """Of tombola and the libraries that results depend on."""
    tombola_commit: str | None = None
    """If tombola was a checkout; see `tombola.utils.checkouts.commit_of`."""
    project_commit: str | None = None
    """If the working directory was in a checkout."""

    @classmethod
    def begin(cls) -> Self:
        """A session that begins now, on this machine."""
        now = _now()
        return cls(
            began=now,
            ended=now,
            processor=processor(),
            system=f"{platform.system()} {platform.release()}, {platform.machine()}",
            python=platform.python_version(),
            versions=versions(),
            tombola_commit=own_commit(),
            project_commit=commit_of(Path.cwd()),
        )

    @property
    def environment(self) -> str:
        """The same text for all sessions with the same hardware and software."""
        return self.model_dump_json(exclude={"began", "ended", "trained"})

    def until_now(self, trained: int) -> Self:
        """The same session with the number of runs that it has trained so far."""
        return self.model_copy(update={"ended": _now(), "trained": trained})


def _now() -> datetime:
    """With the time zone of this machine, to the second."""
    return datetime.now().astimezone().replace(microsecond=0)
