"""The examples of a ticket's own dataset: the test set to measure on, training examples to calibrate with."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch
from pydantic import ValidationError

from tombola.exports.benchmark import BATCH_SIZES
from tombola.exports.examples import Examples, spread
from tombola.exports.int8 import CALIBRATION_EXAMPLES
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError
from tombola.zoo.datasets import DATASETS, IMAGE_DATASETS, prepare
from tombola.zoo.datasets.description import Data

log = logging.getLogger(__name__)

MOST_STREAMED = 500
"""Test examples that are decoded, at most, of images that may not fit into memory."""


def examples_of_test_set(ticket: Ticket, data_dir: str | Path | None) -> Examples:
    """The test set that the ticket names; random numbers, with a warning, if it cannot be read."""
    if ticket.drawn is None:
        raise InputError(
            "this ticket does not say what its examples are: say --examples file.npz, with arrays x and y, or "
            "package.module:name; in Python, tombola.export(..., examples=tombola.Examples(x, y))"
        )
    try:
        data = _data(ticket)
        split = prepare(data, data_dir)
    except InputError as error:
        log.warning("measured on random numbers, so there are no accuracies: %s", error)
        generator = torch.Generator().manual_seed(0)
        return Examples(torch.randn(BATCH_SIZES[-1], *ticket.drawn.network.inputs, generator=generator))
    chosen = torch.arange(len(split.test))
    where = f"the test set of {data.name}"
    if data.stream and len(chosen) > MOST_STREAMED:
        chosen, where = spread(len(chosen), MOST_STREAMED), f"{MOST_STREAMED:,} examples of {where}"
    x, y = split.test[chosen]
    return Examples(x.contiguous(), y, where, split.scaling)


def examples_of_training(ticket: Ticket, data_dir: str | Path | None) -> Examples | None:
    """Examples that the ticket was trained on, scaled but not augmented; None if its data are unknown or cannot be
    read."""
    try:
        data = _data(ticket)
        train = prepare(data, data_dir).train
    except InputError:
        return None
    x, y = train[spread(len(train), CALIBRATION_EXAMPLES)]
    return Examples(x.contiguous(), y, f"the training set of {data.name}")


def _data(ticket: Ticket) -> Data:
    """The dataset of the ticket's run. Raises `InputError` if the ticket does not name one."""
    try:
        data = Data.model_validate_json(json.dumps(ticket.provenance["run"]["data"]))
        if data.name in DATASETS or data.name in IMAGE_DATASETS:
            return data
        named = ticket.provenance["recipe"]["data"]["name"]  # a run does not have the path of files
        return Data.model_validate({**dict(data), "name": named})
    except (LookupError, TypeError, ValidationError):
        raise InputError("the ticket does not say what data it was trained on") from None
