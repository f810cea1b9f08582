"""Which way up a figure is: whether higher or lower is better."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping

from tombola.utils.errors import unknown

_log = logging.getLogger(__name__)

Minimize = bool | str | Collection[str]
"""Whether lower is better: for the first figure of each function, or the figures of which it is."""

_LOSSES = [
    "loss",
    "losses",
    "logloss",
    "crossentropy",
    "xent",
    "ce",
    "bce",
    "nll",
    "kl",
    "kld",
    "divergence",
    "deviance",
    "brier",
    "perplexity",
    "ppl",
    "bpc",
]
_ERRORS = [
    "error",
    "errors",
    "err",
    "mse",
    "rmse",
    "msle",
    "rmsle",
    "mae",
    "mape",
    "smape",
    "wer",
    "cer",
    "eer",
    "fid",
    "cost",
    "risk",
    "regret",
]
_LOWER = {*_LOSSES, *_ERRORS}
_HIGHER = {
    *[
        "accuracy",
        "acc",
        "precision",
        "recall",
        "f1",
        "auc",
        "auroc",
        "auprc",
        "bleu",
        "rouge",
        "iou",
        "miou",
        "dice",
        "map",
        "r2",
    ]
}
_NEGATED = {"minus", "neg", "negative", "negated", "inverse"}


def is_valid(minimize: object) -> bool:
    """Whether it is a `Minimize` or None."""
    return (
        minimize is None
        or isinstance(minimize, bool | str)
        or (isinstance(minimize, Collection) and all(isinstance(name, str) for name in minimize))
    )


def lower_is_better(name: str, minimize: Minimize | None, first: bool = True) -> bool:
    """Whether the figure `name` is better if it is lower; `first`: of its function. Where `minimize` does not say so,
    this is known by its name: lower is better for losses, errors, perplexities and the like."""
    if minimize is None or (isinstance(minimize, bool) and not first):
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
        if _words(name) & _HIGHER and not _words(name) & _NEGATED and lower_is_better(name, minimize):
            _log.warning('"%s" is judged, and lower counts as better, because of minimize', name)
        if not _named_like_a_loss(name):
            continue
        if value > 0 and not lower_is_better(name, minimize):
            _log.warning('"%s" is judged, and higher counts as better; if lower is, give minimize="%s"', name, name)
        if value < 0 and minimize is None:
            _log.warning('"%s" is judged, and lower counts as better; if higher is, give minimize=False', name)


def _named_like_a_loss(name: str) -> bool:
    words, negated = _words(name), bool(re.match(r"\s*1?\s*[-−]", name))
    if "likelihood" in words:
        return negated or bool(words & _NEGATED)
    return (bool(words & _LOWER) or {"cross", "entropy"} <= words) and not words & _NEGATED and not negated


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+\d*|[A-Z]+\d*", name)}
