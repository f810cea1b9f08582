"""The command that shows the built-in recipes."""

from __future__ import annotations

from typing import Annotated

import typer

from tombola.cli.common import Json, app, handle_errors
from tombola.cli.completion import complete_recipe_name
from tombola.cli.output import out_console, print_json, print_line


@app.command()
@handle_errors
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Print this recipe.", autocompletion=complete_recipe_name),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the built-in recipes, or print one as TOML, to edit and run.

    Times are rough estimates for two processor cores, by arithmetic: multiply-adds of the dense network, times
    iterations, times trainings, at the speed that was measured in a few experiments. `tombola run NAME --dry-run`
    measures the speed of your machine instead.

    \b
    Examples:
      tombola recipes
      tombola recipes digits > my.toml
    """

    from tombola.experiments.recipe_files import opening_comment, unknown_recipe
    from tombola.experiments.recipe_files import recipes as known_recipes
    from tombola.experiments.recipe_index import recipe_sizes
    from tombola.report.recipe_table import recipe_lines

    known, sizes = known_recipes(), recipe_sizes()
    if name is not None:
        if name not in known:
            raise unknown_recipe(name)
        if as_json:
            size = sizes[name]
            about = {"name": name, "description": opening_comment(known[name]), "toml": known[name]}
            print_json(about | size._asdict() | {"estimated_seconds": size.seconds})
        else:
            typer.echo(known[name], nl=False)
    elif as_json:
        print_json({each: opening_comment(text) for each, text in known.items()})
    else:
        for line in recipe_lines(sizes, out_console.width):
            print_line(line)
