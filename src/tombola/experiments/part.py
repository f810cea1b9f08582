"""Part: the replicates that one of several processes trains. The processes share only a store.

A replicate is never divided, so no two processes train the same run. Parts therefore need no locks, which buckets and
some network file systems do not have, and they do not read what other processes store.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from tombola.utils.errors import InputError
from tombola.utils.text import plural


@dataclass(frozen=True)
class Part:
    """Part `number`, counted from 1, of all parts."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "2/8". Raises `InputError` for anything else."""
        digits = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        number, of = map(int, digits.groups()) if digits else (0, 0)
        if not 1 <= number <= of:
            raise InputError(f'part: should be I/N with I from 1 to N, such as 2/8, not "{text}"')
        return cls(number, of)

    def replicates(self, count: int) -> range:
        """The part's replicates among `count`: every N-th one. Raises `InputError` if there are more parts than
        replicates."""
        if self.of > count:
            raise InputError(
                f"part: should be of at most {count}, not of {self.of}: there are {plural(count, 'replicate')}"
            )
        return range(self.number - 1, count, self.of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"
