"""`freehold tools`: declared tools, and how busy those with a limit are."""

import click

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._group import Command
from freehold.cli._output import ago


@click.command(cls=Command)
@json_option
@click.pass_context
def tools(ctx: click.Context, *, as_json: bool) -> None:
    """List tools; of those with a concurrency_max, how many calls run and how many wait for a place."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        found = client.request("GET", "/v1/tools")["data"]
    if chosen.output.as_json:
        chosen.output.json(found)
        return
    rows = [
        (
            one["name"],
            one["type"],
            _count(one["concurrency_max"]),
            _count(one["running"]),
            _count(one["waiting"]),
            ago(one["waiting_since"]) if one["waiting_since"] else "",
        )
        for one in found
    ]
    chosen.output.table(
        ("TOOL", "TYPE", "AT ONCE", "RUNNING", "WAITING", "LONGEST SINCE"),
        rows,
        empty="No tools are declared yet: freehold apply FILE",
    )


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)
