"""The evidence in plain words, the same in the terminal and on the page."""

from __future__ import annotations

from typing import Any

from tombola.experiments.method_options import IN_TRAINING
from tombola.utils.text import plural


def answer(summary: dict[str, Any]) -> str:
    """The answer of an experiment and how sure it is, from what `tombola.stats.summary.summarise` gave."""
    if not summary["levels"]:
        return "Nothing is finished yet."
    if summary["method"] != "weights":
        return (
            f"Weights were not rewound after pruning ({summary['method']}): they were trained for longer than the "
            f"dense network's, so none of this is a lottery ticket. The table says how accurate they are."
        )
    if summary["search"] in IN_TRAINING:
        return (
            f"The mask changed while the network trained ({summary['search']}), so none of this is a lottery ticket. "
            f"The table says how accurate it is."
        )
    if summary["no_ticket"]:
        return (
            f"Weights were not rewound ({summary['search']} going on), so none of this is a lottery ticket. "
            f"The table says how accurate it is."
        )
    found = summary["smallest_winning"]
    unfinished = "" if summary["finished"] else " So far, with runs still to do."
    if found is None:
        return f"{_no_ticket(summary)}{unfinished}"
    return (
        f"Winning tickets down to {found['weights_left']:.1%} of the weights ({found['weights']:,} of them, level "
        f"{found['level']}): we are {_sure(summary)} that they {_claim(summary)}, and {_control(summary)} "
        f"({plural(summary['replicates'], 'replicate')}).{unfinished}"
    )


def _no_ticket(summary: dict[str, Any]) -> str:
    """Why no level wins: the first that has few enough weights decides."""
    level = next((level for level in summary["levels"] if level["verdict"]["few"]), None)
    replicates = plural(summary["replicates"], "replicate")
    if level is None:
        return "No winning ticket: no level has far fewer weights than the dense network."
    first = level["verdict"]
    if first["state"] == "not winning":
        reason = first["reason"]
        how = f"surely {reason}" if reason in ("less accurate", "slower") else f"no match: {reason}"
        return (
            f"No winning ticket: at {level['weights_left']:.1%} of the weights tickets are {how} ({replicates}; "
            f"allowed are {' of accuracy and '.join(_allowed(summary))} of the early-stopping iteration)."
        )
    return (
        f"Cannot tell yet whether there are winning tickets: with {replicates} we are not {_sure(summary)} that any "
        f"{_claim(summary)}{_and_control(summary)}. {advice(first)}"
    )


def advice(verdict: dict[str, Any]) -> str:
    """What would decide a verdict that cannot be told yet."""
    reason, more = verdict["reason"], verdict["more_replicates"]
    if more is None:
        return f"{reason[0].upper()}{reason[1:]}: {verdict['instead'][0].lower()}{verdict['instead'][1:]}"
    return f"About {plural(more, 'more replicate')} would probably decide, if their number is fixed beforehand."


def late(summary: dict[str, Any]) -> str:
    """What must be said of dense networks that did not stop early."""
    return (
        f"{summary['late']} of {plural(summary['replicates'], 'dense network')} had the minimum of validation loss "
        f"at the last iteration: trained longer, they could be more accurate, and harder to match."
    )


def _sure(summary: dict[str, Any]) -> str:
    return f"{summary['criteria']['confidence']:.0%} sure"


def _claim(summary: dict[str, Any]) -> str:
    points, later = _allowed(summary)
    return f"are at most {points} less accurate than the dense network and stop at most {later} later"


def _allowed(summary: dict[str, Any]) -> tuple[str, str]:
    """The margins, with their units."""
    criteria = summary["criteria"]
    points = float(f"{100 * criteria['accuracy_margin']:g}")
    return plural(points, "point"), f"{criteria['stop_margin']:.0%}"


def _control(summary: dict[str, Any]) -> str:
    """What is known of the initial weights of the smallest winning ticket."""
    name, smallest = summary["criteria"]["control"], summary["smallest_winning"]["level"]
    level = next(level for level in summary["levels"] if level["level"] == smallest)
    if level["verdict"]["p_better_than_control"] is None:
        return f"nothing is known of their initial weights, as the control {name} was not trained there"
    return f"better than their control, {name}"


def _and_control(summary: dict[str, Any]) -> str:
    name = summary["criteria"]["control"]
    trained = any(name in level["branches"] for level in summary["levels"])
    return f", and are better than their control, {name}" if trained else ""


def better(level: dict[str, Any]) -> str:
    """What a winning ticket surely does better than the dense network, with a comma before it."""
    if not level["verdict"]["winning"]:
        return ""
    names = {"accuracy": "more accurate", "stop": "sooner"}
    return "".join(f", {name}" for figure, name in names.items() if figure in level["verdict"]["better"])


def rewound(stability: dict[str, Any]) -> str:
    """What tickets were rewound to, where that was chosen."""
    chosen = stability["rewound_to"]
    each = [
        f"{k:,}it in {plural(chosen.count(k), 'replicate')}" for k in sorted(k for k in set(chosen) if k is not None)
    ]
    none = f"; in {chosen.count(None)} none of the candidates was, and the last was taken" if None in chosen else ""
    return f"Tickets were rewound to the smallest stable k: {', '.join(each) or 'there is none'}{none}."


def transferred(summary: dict[str, Any]) -> str:
    """What rows of other data are."""
    return (
        f"Rows named transfer are of {summary['transfer']}: the dense network at level 0, then tickets found on the "
        f"data of the search; transfer_random are random masks there. The verdict does not look at them."
    )
