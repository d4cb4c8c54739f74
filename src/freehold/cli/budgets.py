"""`freehold budgets`: what is left of the money; `--limits`: of requests, tokens and places."""

from typing import Any

import click

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._group import Command


@click.command(cls=Command)
@click.option("--limits", is_flag=True, help="Limits by the minute, and of calls at a time, instead.")
@json_option
@click.pass_context
def budgets(ctx: click.Context, *, limits: bool, as_json: bool) -> None:
    """What is used, held and left of budgets."""
    chosen = settings(ctx)
    output = chosen.output
    with connected(chosen) as client:
        found = client.request("GET", "/v1/limits" if limits else "/v1/budgets")
    if output.as_json:
        output.json(found)
    elif limits:
        rows = [
            (
                one["name"],
                _whom(one),
                one["measure"],
                f"{one['size']:,}",
                f"{one['held']:,}",
                f"{one['left']:,}",
            )
            for one in found["data"]
        ]
        output.table(("LIMIT", "FOR", "OF", "SIZE", "HELD", "LEFT"), rows, empty="No limits are declared.")
    else:
        rows = [
            (one["name"], _whom(one), one["window"], *(f"${one[name]}" for name in _AMOUNTS))
            for one in found["data"]
        ]
        output.table(
            ("BUDGET", "FOR", "WINDOW", "SIZE", "USED", "HELD", "LEFT"),
            rows,
            empty="No budgets are declared.",
        )
        for one in found["data"]:
            if one["warned"]:
                output.warn(
                    f"budget {one['name']} ({_whom(one)}): ${one['used_usd']} of ${one['amount_usd']} is used"
                )


_AMOUNTS = ("amount_usd", "used_usd", "held_usd", "left_usd")


def _whom(one: dict[str, Any]) -> str:
    scope = str(one["scope"])
    return scope.replace("*", one["subject"]) if one["subject"] else scope
