from __future__ import annotations

import pytest

from tombola.exports import benchmark, export
from tombola.exports.artefacts import ExportContext
from tombola.exports.benchmark import Artefact
from tombola.exports.runtime import network
from tombola.utils.errors import InputError


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Artefacts are called once in each round of a benchmark."""
    monkeypatch.setattr(benchmark, "MIN_SECONDS", 0.0)


@pytest.fixture
def quick_export(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """The same, and the dense network is not exported to ONNX, which takes seconds."""

    def left_out(context: ExportContext) -> Artefact:  # noqa: ARG001
        raise InputError("not in this test")

    monkeypatch.setattr(export, "dense_onnx", left_out)


@pytest.fixture
def always_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sparse networks wake threads for any amount of work."""
    monkeypatch.setattr(network, "MIN_WORK_PER_THREAD", 1)
