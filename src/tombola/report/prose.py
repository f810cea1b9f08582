"""The results in sentences, the same in the terminal and on the page."""

from __future__ import annotations

from tombola.experiments.copies import copies_text
from tombola.experiments.methods import METHODS
from tombola.experiments.results_schema import Tally
from tombola.report.baseline_prose import baseline_sentence
from tombola.report.formatting import of_all_weights, percent
from tombola.report.looks_prose import replicates, unplanned_looks
from tombola.report.units import margin_amount
from tombola.stats.summary import LevelSummary, StabilitySummary, Summary, VerdictSummary
from tombola.stats.verdict import is_undecided
from tombola.tickets.verification_summary import VerificationSummary
from tombola.utils.text import plural

WIDE_MARGIN = 0.1
"""Of the dense network's figure."""


def conclusion(summary: Summary) -> str:
    """The result of an experiment, how certain it is, and how tickets compare with a tuned baseline; of an unfinished
    one first how much of it there is."""
    text = f"{_result(summary)} {baseline_sentence(summary)}".rstrip()
    if summary.finished:
        return text
    runs = max(
        summary.runs.trained + summary.runs.from_store,
        sum(branch.runs for level in summary.levels for branch in level.branches.values()),
    )
    most = "at most " if summary.stability else ""  # lines share ends, which are counted for each
    return f"Unfinished: {runs:,} of {most}{plural(max(runs, summary.expected_runs), 'run')}. {text}"


def _result(summary: Summary) -> str:
    if not summary.levels:
        return "Nothing is finished yet."
    if summary.rewind_method != "weights":
        return (
            f"Weights were not rewound after pruning ({summary.rewind_method}) but trained on, so these networks "
            f"are not lottery tickets. The table shows how accurate they are."
        )
    if summary.no_ticket:
        reason = (
            f"The mask changed during training ({summary.search_method})"
            if METHODS[summary.search_method].mask_changes
            else f"{summary.no_ticket.capitalize()} ({summary.search_method})"
        )
        return f"{reason}, so these networks are not lottery tickets. The table shows how accurate they are."
    found = summary.smallest_winning
    if found is None:
        return _no_ticket(summary)
    return (
        f"Winning tickets down to {percent(found.weights_left)} of the weights ({found.weights:,} of them"
        f"{of_all_weights(found)}, level {found.level}): {_sure(summary)}, they {_claim(summary)}; "
        f"{_control(summary, found)} "
        f"({replicates(summary, found.verdict.won_at)}).{_not_asked(summary)}"
    )


def _no_ticket(summary: Summary) -> str:
    """Why no level wins: the first that is sparse enough decides."""
    level = next((level for level in summary.levels if level.verdict.sparse_enough), None)
    counted = replicates(summary)
    if level is None and not summary.finished:
        return (
            f"No level that has at most {percent(summary.criteria.max_density)} of the weights has been reached yet."
        )
    if level is None:
        return f"No winning ticket: no level has at most {percent(summary.criteria.max_density)} of the weights."
    verdict = level.verdict
    if verdict.state == "not winning":
        if verdict.reason in (summary.metric.worse, "slower"):
            reason = f"are {verdict.reason} ({_sure(summary)}, {counted})"
        else:
            reason = f"do not match: {verdict.reason} ({counted})"
        left = f"{percent(level.weights_left)} of the weights{of_all_weights(level)}"
        found = f"No winning ticket: at {left} tickets {reason}."
        return f"{found} The margins are {_margins(summary)}.{_not_asked(summary)}"
    return (
        f"Cannot tell yet whether there are winning tickets: {counted} {'does' if summary.replicates == 1 else 'do'} "
        f"not show {_sure(summary)} that tickets "
        f"{_claim(summary)}{_and_control(summary)}. {advice(verdict)}{_not_asked(summary)}"
    )


AVERAGED_BRANCHES = {
    "average": "averages of trainings",
    "pool": "tickets interpolated with those of other levels",
}
"""What the rows of these branches are."""


def without_winner(summary: Summary) -> str:
    """In a few words, why there is no winning ticket: `cannot tell` if there may be one."""
    undecided = is_undecided([level.verdict for level in summary.levels], summary.finished)
    return "cannot tell" if undecided and summary.no_ticket is None else "no winning ticket"


def advice(verdict: VerdictSummary) -> str:
    """What would decide a verdict that is still open."""
    if verdict.more_replicates is None:
        return f"{verdict.reason[0].upper()}{verdict.reason[1:]}: {verdict.advice[0].lower()}{verdict.advice[1:]}"
    more = plural(verdict.more_replicates, "more replicate")
    return f"About {more} would probably decide it. Choose their number before you train them."


def first_undecided(summary: Summary) -> str | None:
    """What would decide the first undecided level."""
    first = next((level for level in summary.levels if level.state == "cannot tell"), None)
    return None if first is None else f"Level {first.level} cannot be decided yet. {advice(first.verdict)}"


def warnings(summary: Summary) -> list[str]:
    """What may surprise in the results: diverged runs, late early stops, rows of another dataset, layer collapse."""
    in_levels = sum(branch.diverged for level in summary.levels for branch in level.branches.values())
    found = divergence(max(summary.runs.diverged, in_levels))
    found += late_minimum(summary.dense_without_early_stop, summary.replicates)
    if text := copies_text(summary.copies):
        found.append(text)
    found += unplanned_looks(summary) + _wide_margin(summary) + _untuned(summary)
    if summary.transfer:
        found.append(
            f"Rows named transfer are trained on {summary.transfer}: at level 0 the dense network, at other levels "
            f"tickets found on the dataset of the search. Rows named transfer_random have random masks. The verdict "
            f"uses neither."
        )
    branches = {name for level in summary.levels for name in level.branches}
    found += [
        f"Rows named {name} are {what}, evaluated at the end of training, not at early stop. The verdict does not "
        f"use them."
        for name, what in AVERAGED_BRANCHES.items()
        if name in branches
    ]
    places: dict[str, list[str]] = {}
    for each in summary.collapsed:
        places.setdefault(each.layer, []).append(f"level {each.level} of replicate {each.replicate}")
    for layer, where in places.items():
        more = f" and {len(where) - 1} more" if len(where) > 1 else ""
        found.append(f"Layer collapse: {layer} has no weights left at {where[0]}{more}.")
    return found


def _wide_margin(summary: Summary) -> list[str]:
    """A warning about a margin that allows nearly anything."""
    metric, margin, dense = summary.metric, summary.criteria.margin, summary.dense
    typical = dense[metric.at_stop].interval if dense else None
    if typical is None or metric.fraction or margin.relative or margin.value <= WIDE_MARGIN * abs(typical.mean):
        return []
    share = percent(margin.value / abs(typical.mean)) if typical.mean else "any part"
    return [
        f"The margin, {margin.value:g}, is {share} of the dense network's {metric.name}, so much worse tickets "
        f'could win. Choose a smaller one, in the same units, or relative, such as margin = "1%".'
    ]


def _untuned(summary: Summary) -> list[str]:
    """A warning about trainings of the dense network that are all the same."""
    trainings = summary.baseline.trainings if summary.baseline else []
    values = [training.figures[summary.metric.at_stop].values for training in trainings]
    if len(values) < 2 or not values[0] or any(each != values[0] for each in values):
        return []
    return ["All trainings of the dense network gave the same figures: it was not tuned."]


def counts(runs: Tally) -> str:
    """What was trained, in a sentence."""
    if runs.trained:
        return f"{plural(runs.trained, 'run')} trained, {runs.from_store:,} from the store."
    return f"Nothing to train: all {plural(runs.from_store, 'run')} came from the store."


def late_minimum(count: int, networks: int) -> list[str]:
    """A warning about dense networks that did not stop early."""
    if not count:
        return []
    return [
        f"{count} of {plural(networks, 'dense network')} were best at the last iteration. With longer training they "
        f"could be better, and harder to match."
    ]


def divergence(runs: int) -> list[str]:
    """A warning about diverged runs."""
    return [f"{plural(runs, 'run')} diverged (the loss was not finite); means exclude them."] if runs else []


def _sure(summary: Summary) -> str:
    return f"with {percent(summary.criteria.confidence)} confidence"


def _claim(summary: Summary) -> str:
    metric, stop = margins(summary)
    stops = f" and stop at most {stop} later" if summary.timed else ""
    return f"are at most {metric} {summary.metric.worse} than the dense network{stops}"


def margins(summary: Summary | VerificationSummary) -> tuple[str, str]:
    """The margins of the metric and of early stop, with their units."""
    return margin_amount(summary.criteria.margin, summary.metric.fraction), percent(summary.criteria.stop_margin)


def _margins(summary: Summary) -> str:
    metric, stop = margins(summary)
    name = f"{metric} of {summary.metric.name}"
    return f"{name} and {stop} of the early-stopping iteration" if summary.timed else name


def _not_asked(summary: Summary) -> str:
    """That nothing is said about training time, where it was not asked for."""
    if summary.timed:
        return ""
    return " Training time was not compared, because nothing was evaluated during training."


def legend(summary: Summary) -> str:
    """What the columns of the table of levels are."""
    metric = summary.metric
    direction = f" {'Higher' if metric.maximize else 'Lower'} is better."
    if summary.has_gap:
        what = "Accuracies are measured at early stop, the iteration of minimum validation loss."
        what += " gap: training accuracy minus test accuracy, in points."
    elif summary.timed:
        what = f"Figures are measured at early stop, the best evaluation during training.{direction}"
    else:
        what = f"Figures are measured at the end of training, without early stop.{direction}"
    return f"{what} p: the p-value of the test that tickets are within the margins; a small one is evidence for it."


def _control(summary: Summary, level: LevelSummary) -> str:
    """What the control of a winning level shows about the initial weights."""
    name = summary.criteria.control
    if level.verdict.p_better_than_control is None:
        return f"their initial weights cannot be judged, because the control {name} was not trained at this level"
    return f"they are better than their control, {name}"


def _and_control(summary: Summary) -> str:
    name = summary.criteria.control
    trained = any(name in level.branches for level in summary.levels)
    return f", and are better than their control, {name}" if trained else ""


def improvements(verdict: VerdictSummary) -> str:
    """In what a winning ticket is better than the dense network, each after a comma."""
    names = {"accuracy": "more accurate", "stop": "sooner"}
    better = verdict.better_in if verdict.winning else []
    return "".join(f", {names.get(name, f'better in {name}')}" for name in better)


def rewind_choice(stability: StabilitySummary) -> str:
    """What tickets were rewound to, if the stability analysis chose it."""
    chosen = stability.rewound_to or []
    each = [
        f"{k:,}it in {plural(chosen.count(k), 'replicate')}" for k in sorted(k for k in set(chosen) if k is not None)
    ]
    none = f"; in {chosen.count(None)} no candidate was stable, and the last one was taken" if None in chosen else ""
    return f"Tickets were rewound to the smallest stable k: {', '.join(each) or 'none'}{none}."
