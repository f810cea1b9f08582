"""Duration: the length of a training, written `500it`, `2ep` or `1ep5it`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

MAX_COUNT = 10**9
_PATTERN = re.compile(r"(?:(\d+)ep)?(?:(\d+)it)?")


@dataclass(frozen=True)
class Duration:
    """A number of epochs and iterations. An iteration is one batch; an epoch is one pass over the data.

    >>> Duration.parse("1ep5it").iterations_of(examples=600, batch_size=60)
    15
    """

    epochs: int = 0
    iterations: int = 0

    @classmethod
    def parse(cls, text: object) -> Duration:
        """Read `500it`, `2ep` or `1ep5it`. Raises `ValueError` for anything else."""
        if isinstance(text, Duration):
            return text
        match = _PATTERN.fullmatch(text) if isinstance(text, str) and text else None
        if match is None:
            raise ValueError('should be a length such as "500it", "2ep" or "1ep5it"')
        epochs, iterations = int(match[1] or 0), int(match[2] or 0)
        if max(epochs, iterations) > MAX_COUNT:
            raise ValueError(f"should be a length of at most {MAX_COUNT:,} epochs or iterations")
        return cls(epochs, iterations)

    def __str__(self) -> str:
        epochs = f"{self.epochs}ep" if self.epochs else ""
        return epochs + f"{self.iterations}it" if self.iterations or not epochs else epochs

    def iterations_of(self, examples: int, batch_size: int) -> int:
        """The number of iterations; an epoch of n examples has ceil(n / batch_size)."""
        return self.epochs * -(-examples // batch_size) + self.iterations

    def in_iterations(self, examples: int, batch_size: int) -> Duration:
        """The same duration in iterations alone."""
        return Duration(iterations=self.iterations_of(examples, batch_size))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.to_string_ser_schema()
        )


ZERO = Duration()
