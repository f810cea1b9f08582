"""Tickets of experiments whose runs a `FakeEngine` answers, and their verification."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_engine import FakeEngine
from tests.support.tickets import experiment_ticket
from tombola.tickets.provenance import read_claim
from tombola.tickets.verification import Verification
from tombola.tickets.verify import verify_ticket


@pytest.fixture(scope="package", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's cache of this package; nothing is trained in it."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tombola.tickets.verify.user_cache_dir", lambda name: str(folder / name))
        for module in ("tombola._trainers", "tombola.tickets.recipe_claim"):
            patch.setattr(f"{module}.named_engine", lambda *_: FakeEngine())
        yield folder


@pytest.fixture(scope="package")
def plain(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:  # noqa: ARG001
    return experiment_ticket(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="package")
def rewound(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:  # noqa: ARG001
    return experiment_ticket(tmp_path_factory.mktemp("rewound"), rewind={"to": "20it"})


@pytest.fixture(scope="package")
def verification(plain: Path) -> Verification:
    return verify_ticket(read_claim(plain), repeats=5)
