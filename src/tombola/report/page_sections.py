"""The sections of the report of one experiment."""

from __future__ import annotations

from pathlib import Path

import tomli_w

from tombola.experiments.experiment import count_runs
from tombola.experiments.experiment_title import configured_as, experiment_label, experiment_title
from tombola.experiments.recipe import Recipe
from tombola.report import report_tables as tables
from tombola.report.barrier_units import barrier_units
from tombola.report.baseline_section import baseline_sections
from tombola.report.document import Document, Section, Text
from tombola.report.double_descent_section import double_descent_sections
from tombola.report.export_tables import caption, notes
from tombola.report.figures.barrier_figures import barriers_figure, interpolation_figure
from tombola.report.figures.layer_figures import densities, distances, sign_changes
from tombola.report.figures.level_figures import GAP, STOP, TRAIN, cost_figure, judged_measure, level_figure
from tombola.report.figures.ticket_barriers import ticket_barriers_figure
from tombola.report.figures.training_curves import training_curves
from tombola.report.figures.weight_figures import initial_weights, pixels
from tombola.report.formatting import percent
from tombola.report.looks_prose import planned_looks
from tombola.report.prose import conclusion, first_undecided, margins, rewind_choice, warnings
from tombola.report.provenance_section import documentation, links, provenance
from tombola.report.report_data import ReportData
from tombola.report.ticket_lines import barriers_table, connections
from tombola.report.unfinished import is_running, resume_text
from tombola.report.unit_section import unit_figures, unit_paragraphs, unit_tables
from tombola.report.units import units_of
from tombola.stats.error_barriers import interpolation_paths
from tombola.stats.summary import Summary
from tombola.utils.text import plural


def document(data: ReportData, page: Path | None = None) -> Document:
    """The report of one experiment. Its links are those of the file `page`, by default one in the results folder."""
    summary, config, folder = data.summary, data.results.config, data.results.folder
    title, configured = experiment_label(config, folder), configured_as(config)
    about = [
        config.trained_on,
        plural(config.replicates, "replicate"),
        plural(len(data.results.rows), "run"),
    ]
    if summary.baseline is None:
        about.append("dense network not tuned")
    if summary.engines:
        about.append(f"{sum(engine.seconds for engine in summary.engines.values()):,.0f} s of computing")
    if data.results.sessions:
        about.append(f"trained on {data.results.sessions[-1].ended:%Y-%m-%d}")
    return Document(
        title=title,
        subtitle=configured if configured != title else "",
        window_title=experiment_title(config, folder),
        about=" · ".join(about),
        conclusions=[("", conclusion(summary))],
        first=_first(data),
        sections=[
            _verdict(summary),
            *baseline_sections(summary),
            *_training(data),
            *_generalisation(data),
            *double_descent_sections(summary),
            _layers(data),
            Section("weights", "Which weights survive", parts=[initial_weights(data), pixels(data)]),
            *_stability(data),
            *_exported(data),
            Section("cost", "Cost", parts=[cost_figure(data), *tables.engines(summary)]),
            provenance(data.results),
            _configuration(data),
        ],
        problems=_problems(data),
        notes=warnings(summary),
        links=[*links(data.results, page), *documentation()],
    )


def _first(data: ReportData) -> Section:
    summary = data.summary
    metric = judged_measure(summary)
    line = "The line across is the dense network, and the shading its margin."
    what = f"A: {metric.title[0].lower()}{metric.title[1:]} against the weights left, dense on the left. {line}"
    figures = [level_figure(summary, metric, what)]
    if not summary.timed:
        return Section("first", metric.title, parts=figures)
    loss = "minimum validation loss" if summary.has_gap else "the best evaluation"
    figures.append(level_figure(summary, STOP, f"A: the iteration of {loss}; lower is sooner."))
    name = summary.metric.name
    return Section("first", f"{name[0].upper()}{name[1:]} and early stop", parts=figures)


def _training(data: ReportData) -> list[Section]:
    """Empty if nothing was evaluated during training."""
    curves = training_curves(data)
    return [Section("training", "Training curves", parts=curves)] if curves else []


def _verdict(summary: Summary) -> Section:
    criteria = summary.criteria
    metric, stop = margins(summary)
    stops, when = f"; it stops at most {stop} later" if summary.timed else "", units_of(summary).when
    not_asked = "" if summary.timed else " Whether tickets train as fast was not asked."
    paragraphs = [
        f"A ticket wins if each of these holds, with {percent(criteria.confidence)} confidence:{when} it is "
        f"at most {metric} {summary.metric.worse} than the dense network{stops}; at most "
        f"{percent(criteria.max_density)} of the weights are left; and, where the control “{criteria.control}” was "
        f"trained, tickets are better than the control. Levels are tested from dense to sparse, starting at the "
        f"first that is sparse enough; testing stops at the first that does not win.{not_asked}",
        "Differences are ticket minus dense, paired over replicates. The p-value is the probability of differences "
        "at least this good if tickets were worse than the dense network by the margin, or, for a control, if they "
        "were not better than it.",
    ]
    if summary.timed and any(level.verdict.stop_margin < criteria.stop_margin for level in summary.levels[1:]):
        paragraphs.append(
            f"Here, evaluations are further apart than {stop} of the dense network's early stop: a ticket must stop "
            f"sooner than the dense network."
        )
    paragraphs += planned_looks(summary)
    if undecided := first_undecided(summary):
        paragraphs.append(undecided)
    paragraphs += connections(summary)
    lines = [*ticket_barriers_figure(summary), *barriers_table(summary)]
    parts = [tables.verdicts(summary), *tables.controls(summary), *lines] if summary.levels else []
    return Section("verdict", "The verdict, level by level", paragraphs, parts)


def _generalisation(data: ReportData) -> list[Section]:
    """Empty if training accuracy is not known."""
    summary, config = data.summary, data.results.config
    if not isinstance(config, Recipe):
        return []
    dataset = config.data
    fraction, noise = dataset.fraction, percent(dataset.label_noise)
    used = "All training examples" if fraction >= 1 else f"{percent(fraction)} of the training examples"
    labels = "their labels are unchanged"
    if dataset.label_noise:
        labels = (
            f"the labels of {noise} of them were drawn at random. These count in training accuracy: where the "
            f"network does not memorise them, the gap is negative"
        )
    paragraphs = [
        "On small datasets overfitting could make sparse networks look good, because pruning acts as a regulariser. "
        "Then the dense network would fit its training examples perfectly and be much worse on the test set, and the "
        "gap between the two would close as weights are removed, for controls as well as for tickets.",
        f"{used} were used, except {dataset.validation:,} held out for validation; {labels}.",
    ]
    gap = "Accuracy on the training examples minus accuracy on the test set, both at early stop."
    parts = [level_figure(summary, GAP, gap), level_figure(summary, TRAIN, "Accuracy on the training examples.")]
    table = [tables.generalisation(summary)] if summary.levels else []
    return [Section("generalisation", "Training accuracy and generalisation", paragraphs, [*parts, *table])]


def _layers(data: ReportData) -> Section:
    paragraphs = ["Tickets only; level 0 is the dense network.", *unit_paragraphs(data)]
    figures = [*unit_figures(data), densities(data), sign_changes(data), distances(data)]
    return Section("layers", "Layers", paragraphs, [*figures, *unit_tables(data)])


def _stability(data: ReportData) -> list[Section]:
    """Empty without a stability analysis."""
    found, section = data.summary.stability, data.results.config.stability
    if found is None or section is None or not found.candidates:
        return []
    paragraphs = [
        "A network is stable at iteration k if trainings that share their first k iterations, and then differ in "
        "batch order, end at weights connected by a straight line without an error barrier (Frankle et al. 2020). "
        "Larger networks have winning tickets if weights are rewound to an iteration at which they are stable.",
    ]
    if found.rewound_to:
        paragraphs.append(rewind_choice(found))
    paths = interpolation_paths(data.results.stability, section.points, metric=found.metric)
    units = barrier_units(data.summary, found)
    parts = [interpolation_figure(paths, units), barriers_figure(found, units), tables.stability(found, units)]
    return [Section("stability", "Stability", paragraphs, parts)]


def _exported(data: ReportData) -> list[Section]:
    """Empty if the ticket was not exported."""
    export = data.export
    if export is None:
        return []
    paragraphs = [caption(export.about, export.figures), *notes(export), f"Inputs are {export.about.inputs}."]
    return [Section("shipped", "Shipped", paragraphs, tables.exported(export))]


def _configuration(data: ReportData) -> Section:
    results = data.results
    parts = [Text("command", "The command of this experiment", results.command)] if results.command else []
    parts.append(Text("configuration-text", "The whole configuration", tomli_w.dumps(results.config.resolved())))
    return Section("configuration", "Configuration", parts=parts)


def _problems(data: ReportData) -> list[str]:
    results = data.results
    problems = [f"{problem[0].upper()}{problem[1:]}." for problem in data.problems]
    if not results.finished:
        finished = f"{len(results.rows):,} of {plural(count_runs(results.config), 'run')}"
        state = "It was running when this page was written" if is_running(results.folder) else "It was interrupted"
        resume = " ".join(resume_text(results.folder, results))
        problems.insert(0, f"This experiment is not finished: {finished} are available. {state}. {resume}")
    return problems
