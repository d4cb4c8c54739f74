"""`freehold apply FILE`: says what it will change, asks where a person is there to answer, and does it all or not at all."""

import sys
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._group import Command
from freehold.cli._output import Output, short

_SIGNS = {
    "create": "[green]+ create[/green]",
    "update": "[yellow]~ update[/yellow]",
    "unchanged": "[dim]= unchanged[/dim]",
}
_VALUE_WIDTH = 60


@click.command(cls=Command)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "--set",
    "variables",
    multiple=True,
    metavar="NAME=VALUE",
    help="Fill ${NAME} in the template; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would change. Exit code 0 either way.")
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@click.option(
    "--allow-unknown-models", is_flag=True, help="Apply agents whose model the catalog does not know."
)
@json_option
@click.pass_context
def apply(
    ctx: click.Context,
    *,
    file: str,
    variables: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    allow_unknown_models: bool,
    as_json: bool,
) -> int:
    """Apply the template in FILE (YAML or JSON; - reads standard input).

    \b
      freehold apply examples/retail/retail.yaml --set SUPPLY_CHAIN_URL=http://127.0.0.1:8930
    """
    chosen = settings(ctx)
    output = chosen.output
    body = {
        "template": _read(file),
        "source": Path(file).name if file != "-" else "standard input",
        "variables": _variables(variables),
        "allow_unknown_models": allow_unknown_models,
    }
    with connected(chosen) as client:
        plan = client.request("POST", "/v1/templates/plan", body=body)
        show_plan(output, plan)
        changing = [change for change in plan["changes"] if change["action"] != "unchanged"]
        if dry_run or not changing:
            if output.as_json:
                output.json({"plan": plan, "resources": []})
            elif not changing:
                output.say("Nothing to change.")
            return 0
        if not yes and sys.stdin.isatty() and not output.as_json:
            click.confirm("Apply?", abort=True, default=True)
        applied = client.request("POST", "/v1/templates/apply", body=body)
        if output.as_json:
            output.json(applied)
        for one in applied["resources"]:
            output.say(
                f"[green]applied[/green] {one['kind']} {escape(one['name'])} (version {one['version']})"
            )
    return 0


def show_plan(output: Output, plan: dict[str, Any]) -> None:
    for change in plan["changes"]:
        version = f" [dim](version {change['version']})[/dim]" if change["version"] else ""
        output.say(
            f"{_SIGNS[change['action']]} {change['kind']} [bold]{escape(change['name'])}[/bold]{version}"
        )
        for field in change["fields"]:
            before, after = _value(field["before"]), _value(field["after"])
            output.say(f"    {escape(field['path'])}: [red]{before}[/red] → [green]{after}[/green]")
    for warning in plan["warnings"]:
        output.warn(warning)


def _value(value: Any) -> str:
    return "(not set)" if value is None else escape(short(value, width=_VALUE_WIDTH))


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{file} is not UTF-8 text") from error


def _variables(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--set takes NAME=VALUE, got {one!r}")
        found[name] = value
    return found
