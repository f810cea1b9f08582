"""How commands show their help, and report what they cannot parse: in plain text, and in one line.

Rich is not used for help: it takes text in square brackets for markup and drops it, and its columns for types leave
little space for the text at 80 columns.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from tombola.cli.output import print_error
from tombola.cli.unknown_option import unknown_option

# Click's, or those of the copy of Click that newer releases of Typer contain.
_exceptions = import_module(typer.BadParameter.__module__)

CommandFunction = TypeVar("CommandFunction", bound=Callable[..., Any])

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class App(typer.Typer):
    """A group of commands, whose help is plain text."""

    def __init__(self, help: str, **options: Any) -> None:
        super().__init__(
            cls=Group,
            help=help,
            no_args_is_help=True,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            context_settings=SETTINGS,
            **options,
        )

    def command(self, name: str | None = None, **options: Any) -> Callable[[CommandFunction], CommandFunction]:
        """Register a command, as `typer.Typer.command` does."""
        return super().command(name, **{"cls": Command, **options})


class _PlainHelp:
    """Help as Click writes it, with options by panel."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        command: Any = self
        command.format_usage(ctx, formatter)
        command.format_help_text(ctx, formatter)
        command.format_options(ctx, formatter)
        command.format_epilog(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _format_options(self, ctx, formatter)


class Command(_PlainHelp, TyperCommand):
    """A command whose options are listed by panel."""


class Group(_PlainHelp, TyperGroup):
    """A group of commands. Invalid options and arguments are reported in one line, with exit status 2."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        super().format_options(ctx, formatter)
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_paragraph(command.help)) for name, command in commands if command])

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, standalone_mode: bool = True, **options: Any
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        try:
            status = super().main(given, standalone_mode=False, **options)
        except _exceptions.ClickException as error:
            if not standalone_mode:
                raise
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()
            else:
                print_error(f"error: {_described(error, given)}")
            sys.exit(error.exit_code)
        except typer.Abort:
            if not standalone_mode:
                raise
            print_error("aborted", "yellow")
            sys.exit(1)
        if standalone_mode:
            sys.exit(status if isinstance(status, int) else 0)
        return status


def _described(error: Any, given: Sequence[str]) -> str:
    """An error of parsing in one line, with where to read more."""
    context = getattr(error, "ctx", None)
    if context and isinstance(error, _exceptions.NoSuchOption):
        options = [option for parameter in context.command.params for option in parameter.opts]
        message = unknown_option(error.option_name, options, given)
    else:
        message = " ".join(error.format_message().split()).rstrip(".")
        message = f"{message[:1].lower()}{message[1:]}"
    return f"{message} (see {context.command_path if context else 'tombola'} --help)"


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").strip().split("\n\n")[0].split())


def _format_options(command: Any, ctx: Any, formatter: Any) -> None:
    panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            other = "Arguments" if parameter.param_type_name == "argument" else "Options"
            name, text = record
            text = text.replace("\\[", "[")  # earlier releases of Typer escape brackets, also where Rich is not used
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or other, []).append((name, text))
    for title, records in panels.items():
        if records:
            with formatter.section(title):
                formatter.write_dl(records)
