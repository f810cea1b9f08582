"""The page of one experiment."""

from __future__ import annotations

from typing import Any

import tomli_w

from tombola.experiments.experiment import expected_runs
from tombola.report import tables
from tombola.report.document import Document, Section, Text
from tombola.report.export_tables import caption, notes
from tombola.report.figures.cost import cost_figure
from tombola.report.figures.curves import loss_curves, validation_curves
from tombola.report.figures.layer_figures import densities, distances, sign_changes
from tombola.report.figures.level_figures import ACCURACY, GAP, STOP, TRAIN, level_figure
from tombola.report.figures.stability_figures import barriers_figure, walks_figure
from tombola.report.figures.weights import initial_weights, pixels
from tombola.report.prose import answer, late, rewound, transferred
from tombola.report.report_data import ReportData
from tombola.stats.stability import lines
from tombola.utils.text import plural


def document(material: ReportData) -> Document:
    """Everything about one experiment."""
    summary, recipe = material.summary, material.results.recipe
    runs = sum(branch["runs"] for level in summary["levels"] for branch in level["branches"].values())
    about = [
        f"{recipe.model.name} on {recipe.data.name}",
        plural(recipe.replicates, "replicate"),
        plural(runs, "run"),
    ]
    if summary["engines"]:
        about.append(f"{sum(did['seconds'] for did in summary['engines'].values()):,.0f} s of computing")
    return Document(
        title=recipe.name,
        about=" · ".join(about),
        answers=[("", answer(summary))],
        first=_first(material),
        sections=[
            _verdict(summary),
            _training(material),
            _generalisation(material),
            _layers(material),
            _weights(material),
            *_stability(material),
            *_shipped(material),
            _cost(material),
            _configuration(material),
        ],
        problems=_problems(material),
        notes=_notes(material),
    )


def _first(material: ReportData) -> Section:
    summary = material.summary
    if material.results.recipe.replicates > 1:
        band = f"Bands: {summary['criteria']['confidence']:.0%} confidence in the mean over replicates."
    else:
        band = "One replicate: there is no telling how sure this is."
    caption = f"Dense at the left, sparser to the right. {band}"
    late = "Where validation loss is least. Lower is sooner."
    figures = [level_figure(summary, ACCURACY, caption), level_figure(summary, STOP, f"{late} {band}")]
    return Section("first", "Accuracy and early stop", parts=figures)


def _verdict(summary: dict[str, Any]) -> Section:
    criteria = summary["criteria"]
    points = plural(float(f"{100 * criteria['accuracy_margin']:g}"), "point")
    words = [
        f"A ticket wins when we are {criteria['confidence']:.0%} sure of each: it is at most {points} less accurate "
        f"than the dense network at early stop; it stops at most {criteria['stop_margin']:.0%} later; at most "
        f"{criteria['max_density']:.0%} of the weights are left; and, where the control “{criteria['control']}” was trained, "
        f"tickets are better than it. Levels are tested from dense to sparse: behind the first of few enough weights "
        f"that does not win, none is called winning.",
        "Differences are ticket minus dense, paired over replicates. Beside the dense network, p is small where the "
        "ticket is surely not worse by more than the margin; beside a control, where it is surely better.",
    ]
    if any(level["verdict"]["stop_margin"] < criteria["stop_margin"] for level in summary["levels"][1:]):
        words.append(
            f"Evaluations are further apart here than {criteria['stop_margin']:.0%} of the dense network's early "
            f"stop: a ticket must be sooner than the dense network."
        )
    if more := tables.more_needed(summary):
        words.append(more)
    found = [tables.verdicts(summary), *tables.controls(summary)] if summary["levels"] else []
    return Section("verdict", "The verdict, level by level", words, found)


def _training(material: ReportData) -> Section:
    return Section("training", "Training curves", parts=[validation_curves(material), loss_curves(material)])


def _generalisation(material: ReportData) -> Section:
    summary, data = material.summary, material.results.recipe.data
    fraction, noise = data.fraction, 100 * data.label_noise
    used = "All training examples" if fraction >= 1 else f"{100 * fraction:.3g}% of the training examples"
    noisy = "their labels are as they come"
    if noise:
        noisy = (
            f"the labels of {noise:.3g}% of them were drawn at random, and training accuracy counts these: where "
            f"they are not learnt by heart, the gap is negative"
        )
    words = [
        "Small data and overfitted networks could make sparse networks look good: pruning would merely regularise. "
        "Then the dense network would fit its training examples perfectly and fall far short on the test set, and "
        "the gap between the two would close as weights are removed, for controls as well as for tickets.",
        f"{used} were used, but for {data.validation:,} held out for validation; {noisy}.",
    ]
    parts = [level_figure(summary, GAP, _GAP), level_figure(summary, TRAIN), tables.generalisation(summary)]
    return Section(
        "generalisation", "Training accuracy and generalisation", words, parts if summary["levels"] else parts[:2]
    )


_GAP = "Accuracy on the training examples minus accuracy on the test set, both at early stop."


def _layers(material: ReportData) -> Section:
    parts = [densities(material), sign_changes(material), distances(material)]
    return Section("layers", "Layers", ["Tickets only, level 0 being the dense network."], parts)


def _weights(material: ReportData) -> Section:
    return Section("weights", "Which weights survive", parts=[initial_weights(material), pixels(material)])


def _stability(material: ReportData) -> list[Section]:
    """Nothing where no lines were walked."""
    found = material.summary["stability"]
    if not found or not found["candidates"]:
        return []
    stability = material.results.recipe.stability
    walked = lines(material.results.stability, stability.points) if stability else []
    words = [
        "A network is stable at iteration k when trainings that share their first k iterations, and differ in batch "
        "order after, end at weights joined by a straight line without an error barrier (Frankle et al. 2020). "
        "Larger networks have winning tickets where they are rewound to an iteration at which they are stable.",
    ]
    if found["rewound_to"]:
        words.append(rewound(found))
    parts = [walks_figure(walked), barriers_figure(found), tables.stability(found)]
    return [Section("stability", "Stability", words, parts)]


def _shipped(material: ReportData) -> list[Section]:
    """Nothing where nothing was exported."""
    shipped = material.shipped
    if shipped is None:
        return []
    words = [caption(shipped.about, shipped.figures), *notes(shipped), f"Inputs are {shipped.about.inputs}."]
    return [Section("shipped", "Shipped", words, tables.shipped(shipped.figures))]


def _cost(material: ReportData) -> Section:
    engines = [tables.costs(material.summary)] if material.summary["engines"] else []
    return Section("cost", "Cost", parts=[cost_figure(material), *engines])


def _configuration(material: ReportData) -> Section:
    results = material.results
    command = results.command
    parts: list[Any] = [Text("command", "The command that made it", command)] if command else []
    parts.append(Text("configuration-text", "The whole configuration", tomli_w.dumps(results.recipe.resolved())))
    if results.versions:
        parts.append(tables.versions(results.versions))
    return Section("configuration", "Configuration", parts=parts)


def _problems(material: ReportData) -> list[str]:
    results = material.results
    problems = [f"{problem[0].upper()}{problem[1:]}." for problem in material.problems]
    if not results.finished:
        there = f"{len(results.rows):,} of {plural(expected_runs(results.recipe), 'run')}"
        problems.insert(0, f"This experiment is not finished: {there} are there.")
    return problems


def _notes(material: ReportData) -> list[str]:
    notes = []
    diverged = sum(row.measures.diverged for row in material.results.rows)
    if diverged:
        notes.append(f"{plural(diverged, 'run')} diverged: the loss was not finite. Figures leave them out.")
    if material.summary["late"]:
        notes.append(late(material.summary))
    if material.summary["transfer"]:
        notes.append(transferred(material.summary))
    where: dict[str, list[int]] = {}
    for _, level, layer in material.results.collapsed:
        where.setdefault(layer, []).append(level)
    notes += [
        f"Layer collapse: from level {min(levels)} on, {layer} has no weights left in some replicates."
        for layer, levels in where.items()
    ]
    return notes
