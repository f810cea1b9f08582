"""The reference of the command line: every command, argument and option, from the application itself."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

import typer


def command_line() -> str:
    """Every command as a heading, its usage, its purpose, and a table of its arguments and options."""
    return "\n\n".join(_described(" ".join(path), command) for path, command in commands())


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """(words, command) of the application, its groups and all their commands."""
    importlib.import_module("tombola.cli")  # registers all commands
    from tombola.cli.common import app

    yield from _walk(("tombola",), typer.main.get_command(app))


def _walk(path: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from _walk((*path, name), child)


def parameters(command: Any) -> list[Any]:
    """The arguments and options that are not hidden."""
    return [each for each in command.params if not getattr(each, "hidden", False)]


def _described(name: str, command: Any) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    text = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    parts = [f"## `{name}`", text, f"```text\n{usage}\n```"]
    records = [each.get_help_record(context) for each in parameters(command)]
    if rows := [_row(*record) for record in records if record is not None]:
        parts.append("\n".join(["| option | meaning | default and more |", "|-|-|-|", *rows]))
    return "\n\n".join(parts)


def _row(option: str, meaning: str) -> str:
    """The row of an option, whose help ends with its default, its environment variable or its range in brackets."""
    text, _, extra = meaning.removesuffix("]").rpartition("  [") if meaning.endswith("]") else (meaning, "", "")
    name = ", ".join(f"`{each}`" for each in re.split(r", | / ", option))
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in (name, text, extra)) + " |"
