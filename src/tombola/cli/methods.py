"""The command that compares a ticket with its controls and other methods."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tombola.cli.common import (
    CheckpointEvery,
    Cluster,
    ClusterResources,
    DataDir,
    DeviceName,
    EngineName,
    Json,
    Overrides,
    RecipeName,
    StoreBeside,
    Workers,
    app,
    handle_errors,
)
from tombola.cli.output import err_console, out_console, print_json, print_line, print_list
from tombola.utils.errors import InputError, unknown
from tombola.utils.text import plural

if TYPE_CHECKING:
    from tombola.experiments.recipe import Recipe
    from tombola.experiments.results import Results
    from tombola.studies.conductor import Listener

PAGE = "methods.html"


FORMATS = ("text", "markdown", "latex")


@app.command()
@handle_errors
def methods(
    recipe: RecipeName,
    level: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Level of the search whose ticket is compared.", show_default="smallest winning"
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ROW", help="Only this control or method, such as rigl. May be given several times."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="ROW", help="All but this control or method. May be given several times."),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COST",
            help="Also train methods whose mask changes until their training costs COST dense trainings, or as much "
            "as the ticket and its search (ticket); none: do not. May be given several times.",
            show_default="1",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder for the results folders.", show_default="results/NAME-methods"
        ),
    ] = None,
    overrides: Overrides = None,
    data_dir: DataDir = None,
    store: StoreBeside = None,
    form: Annotated[
        str,
        typer.Option(
            "--format", metavar="FORMAT", help="Print text, markdown or latex.", autocompletion=lambda: [*FORMATS]
        ),
    ] = "text",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be trained.")] = False,
    report: Annotated[bool, typer.Option(help="Write a page with a figure and the table.")] = True,
    engine: EngineName = "auto",
    device: DeviceName = "auto",
    workers: Workers = None,
    checkpoint_every: CheckpointEvery = 30.0,
    cluster: Cluster = None,
    resources: ClusterResources = None,
    as_json: Json = False,
) -> None:
    """Compare a ticket with the dense network, controls and other search methods, at the same number of weights.

    Runs are kept in the store, so what several rows need is trained once. The same command resumes. `--set` takes the
    recipe's keys, and those of other methods' sections, such as rigl.changes=10.

    \b
    Examples:
      tombola methods digits
      tombola methods digits --level 4 --budget 1 --budget ticket
      tombola methods digits --level 4 --only rigl --only gradual --format markdown
    """

    from tombola._compare_methods import (
        default_level,
        parse_budgets,
        plan_methods,
        train_methods,
        verdict_recipe,
    )
    from tombola._sweep import sweep
    from tombola.experiments.compared_methods import Choice, split_overrides
    from tombola.experiments.experiment import count_runs
    from tombola.experiments.recipe import load_recipe
    from tombola.report.method_table import latex, markdown, show_methods
    from tombola.report.progress import ProgressDisplay

    if form not in FORMATS:
        raise unknown("--format", form, FORMATS)
    own, sections = split_overrides(overrides or [])
    chosen, choice = load_recipe(recipe, own), Choice(only or (), without or ())
    budgets = parse_budgets(["1"] if budget is None else budget)
    folder = out or Path("results") / f"{chosen.name}-methods"
    run = functools.partial(
        sweep,
        store=store or folder.parent / ".tombola",
        engine=engine,
        device=device,
        workers=workers,
        cluster=cluster,
        resources=resources or (),
        checkpoint_every=checkpoint_every,
        data_dir=data_dir,
    )

    def train(recipes: Mapping[Path, Recipe], listeners: Sequence[Listener] = ()) -> Sequence[Results]:
        with ProgressDisplay(err_console, sum(map(count_runs, recipes.values())), "training") as progress:
            return run(recipes, listeners=[progress, *listeners])

    chose = level is None
    if level is None:
        if dry_run:
            raise InputError("--dry-run: needs --level, as the smallest winning level is not known before")
        (found,) = train({folder / "search": verdict_recipe(chosen, data_dir)})
        level = default_level(found)
    plan = plan_methods(chosen, level, choice, budgets, sections, data_dir)
    plan.level_chosen = chose
    if dry_run:
        print_line(
            f"{plural(len(plan.methods), 'experiment')}: {', '.join(plan.methods)}.\n"
            f"{plural(chosen.replicates * plan.runs, 'run')} at most, which cost "
            f"{chosen.replicates * plan.cost:.1f} dense trainings.",
        )
        for name, reason in plan.skipped.items():
            print_line(f"Left out: {name} ({reason}).")
        return
    comparison = train_methods(plan, folder, train)
    page = folder / f"level-{level}" / PAGE
    if report:
        from tombola.report.page import write_method_page

        write_method_page(comparison, page)
    if as_json:
        print_json(comparison.to_dict())
    elif form == "text":
        show_methods(out_console, comparison)
        print_line("")
        print_list([("results", f"{folder}"), *([("page", f"{page}")] if report else [])])
    else:
        typer.echo(markdown(comparison) if form == "markdown" else latex(comparison))
