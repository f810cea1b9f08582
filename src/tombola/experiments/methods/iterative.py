"""Iterative and one-shot pruning as search methods; their options are those of `[search]`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tombola.experiments.methods.search_method import MethodContext, SearchMethod
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study
from tombola.studies.search import iterative_search, one_shot_search


def _iterative(
    context: MethodContext, dense: Run, search: Callable[..., Study[list[RunRequest]]] = iterative_search
) -> Study[list[RunRequest]]:
    return search(dense, context.levels, context.prune, context.retrain)


ITERATIVE = SearchMethod("iterative", _iterative, one_level=False)
ONE_SHOT = SearchMethod("one-shot", partial(_iterative, search=one_shot_search), one_level=False)
