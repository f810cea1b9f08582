"""Which way up a figure is: whether higher or lower is better."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping

from tombola.utils.errors import unknown

_log = logging.getLogger(__name__)

Minimize = bool | str | Collection[str]
"""Whether lower is better: for the judged figure, or for the figures of these names."""

_LOWER = {"loss", "losses", "error", "errors", "err", "perplexity", "ppl", "nll", "mse", "rmse", "mae", "bpc", "wer"}
_NEGATED = {"minus", "neg", "negative", "negated", "inverse"}


def is_valid(minimize: object) -> bool:
    """Whether it is a `Minimize` or None."""
    return (
        minimize is None
        or isinstance(minimize, bool | str)
        or (isinstance(minimize, Collection) and all(isinstance(name, str) for name in minimize))
    )


def lower_is_better(name: str, minimize: Minimize | None) -> bool:
    """Whether the figure `name`, if it is judged, is better if it is lower. None for `minimize` means that this is
    known by its name: lower is better for losses, errors, perplexities and the like."""
    if minimize is None:
        return _named_like_a_loss(name)
    if isinstance(minimize, bool):
        return minimize
    return name == minimize if isinstance(minimize, str) else name in minimize


def check_direction(figures: Mapping[str, float], minimize: Minimize | None) -> None:
    """Warn, through logging, if the judged figure, the first, seems to be a loss that is maximised, or a negated one
    that is minimised by its name. Raises `InputError` if `minimize` names other figures than these."""
    if minimize is not None and not isinstance(minimize, bool):
        for name in [minimize] if isinstance(minimize, str) else minimize:
            if name not in figures:
                raise unknown("figure in minimize", name, figures)
    for name, value in [*figures.items()][:1]:
        if not _named_like_a_loss(name):
            continue
        if value > 0 and not lower_is_better(name, minimize):
            _log.warning('"%s" is judged, and higher counts as better; if lower is, give minimize="%s"', name, name)
        if value < 0 and minimize is None:
            _log.warning('"%s" is judged, and lower counts as better; if higher is, give minimize=False', name)


def _named_like_a_loss(name: str) -> bool:
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
    return bool(words & _LOWER) and not words & _NEGATED and not re.match(r"\s*1?\s*[-−]", name)
