"""`freehold slos`: how routes serve against what they declare, and what they did about it."""

from typing import Any

import click

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._group import Command

_WINDOWS = ("5m", "30m", "1h", "6h")


@click.command(cls=Command)
@json_option
@click.pass_context
def slos(ctx: click.Context, *, as_json: bool) -> None:
    """How fast routes, and their models, use up what may go wrong (1 is just what is allowed)."""
    chosen = settings(ctx)
    output = chosen.output
    with connected(chosen) as client:
        found = client.request("GET", "/v1/slos")
    if output.as_json:
        output.json(found)
        return
    rows = [row for route in found["data"] for row in _rows(route)]
    header = ("ROUTE", "MODEL", "OBJECTIVE", *(f"BURN {window}" for window in _WINDOWS), "BAD", "OF", "ALERT")
    output.table(header, rows, empty="No route declares an slo.")
    for route in found["data"]:
        for act in route["acts"]:
            output.say(f"{act['at']} {route['route']}: {act['what']} {act['model']}: {act['why']}")


def _rows(route: dict[str, Any]) -> list[tuple[str, ...]]:
    served = [("", route["objectives"]), *((one["model"], one["objectives"]) for one in route["models"])]
    return [
        (
            route["route"],
            model,
            one["objective"],
            *(f"{one['burn_rates'][window]:.2f}" for window in _WINDOWS),
            str(one["bad"]),
            str(one["ended"]),
            one["alert"] or "",
        )
        for model, objectives in served
        for one in objectives
    ]
