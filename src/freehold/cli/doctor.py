"""`freehold doctor`: everything that Freehold needs, looked at; what is wrong comes with what to do. Changes nothing."""

import os
from collections.abc import Iterator
from typing import Final

import click
from rich.markup import escape
from rich.table import Table

from freehold.cli import _doctor_checks as checks
from freehold.cli._connection import Settings, json_option, running_server, settings
from freehold.cli._doctor_checks import Finding, State
from freehold.cli._group import Command
from freehold.config import read_config
from freehold.core.errors import BadRequest

_MARKS: Final[dict[State, str]] = {
    "ok": "[green]✓[/green]",
    "failed": "[red]✗[/red]",
    "warning": "[yellow]![/yellow]",
    "absent": "[dim]–[/dim]",
}
NAME_WIDTH: Final = 20


@click.command(cls=Command)
@json_option
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool) -> int:
    """Check everything that Freehold needs on this machine, with or without a server running.

    ✓ is well, – is not there and need not be, ! wants attention, ✗ must be mended (then the exit code is 1).
    """
    chosen = settings(ctx)
    if chosen.url:
        raise click.UsageError("the doctor looks at this machine: leave out --url (and FREEHOLD_URL)")
    found = []
    for finding in _findings(chosen):
        found.append(finding)
        _show(chosen, finding)
    failed = [finding for finding in found if finding.state == "failed"]
    if chosen.output.as_json:
        chosen.output.json({"well": not failed, "findings": found})
    elif failed:
        chosen.output.say(f"\n[red]{len(failed)} to mend.[/red]")
    else:
        chosen.output.say("\n[green]Nothing needs mending.[/green]")
    return 1 if failed else 0


def _findings(chosen: Settings) -> Iterator[Finding]:
    yield checks.python()
    try:
        config = read_config(data_folder=chosen.data_folder, environment=os.environ)
    except BadRequest as error:
        yield Finding("configuration", "failed", str(error), "Mend it: the server refuses to start with it.")
        return
    yield checks.data_folder(config.data_folder)
    yield checks.disk(config.data_folder)
    told = running_server(config.data_folder)
    yield checks.server(told)
    yield from checks.database(config, told)
    yield from checks.models(config, told)
    yield checks.sandbox()
    yield from checks.function_folders(config)
    yield from checks.companions(config)
    yield checks.examples(config.data_folder)


def _show(chosen: Settings, finding: Finding) -> None:
    if chosen.output.as_json:
        return
    remedy = f"\n[dim]{escape(finding.remedy)}[/dim]" if finding.remedy else ""
    line = Table.grid(padding=(0, 1))
    line.add_column(width=1)
    line.add_column(width=NAME_WIDTH, style="bold")
    line.add_column(overflow="fold")
    line.add_row(_MARKS[finding.state], escape(finding.check), f"{escape(finding.says)}{remedy}")
    chosen.output.out.print(line)
