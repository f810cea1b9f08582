"""Margin: how much worse than the dense network a figure may be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class Margin:
    """A distance in the figure's own units or, if it is `relative`, as a fraction of the dense network's figure.

    >>> Margin.parse("1%")
    Margin(value=0.01, relative=True)
    """

    value: float
    relative: bool = False

    @classmethod
    def parse(cls, given: object) -> Margin:
        """Read a number, or a percentage such as `"1%"`. Raises `ValueError` for anything else."""
        if isinstance(given, Margin):
            return given
        relative = isinstance(given, str) and given.endswith("%")
        try:
            if isinstance(given, bool) or not (relative or isinstance(given, int | float)):
                raise ValueError
            value = float(given[:-1]) / 100 if isinstance(given, str) else float(given)  # type: ignore[arg-type]
        except ValueError:
            raise ValueError('should be a number, or a percentage such as "1%"') from None
        if not (math.isfinite(value) and value >= 0):
            raise ValueError("should be at least 0")
        return cls(value, relative)

    @property
    def given(self) -> float | str:
        """What `parse` reads."""
        return f"{100 * self.value:.12g}%" if self.relative else self.value

    def __str__(self) -> str:
        return str(self.given)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(lambda margin: margin.given)
        )
