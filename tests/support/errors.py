"""The error for wrong input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tombola.utils.errors import InputError


@contextmanager
def raises_input_error(*facts: object) -> Iterator[None]:
    """Expect an `InputError` whose message is one line and states every one of `facts`."""
    with pytest.raises(InputError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for fact in facts:
        assert str(fact) in message
