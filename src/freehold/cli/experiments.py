"""`freehold experiments`: how the arms of a route's experiment do."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import click

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._group import Commands


@click.group(cls=Commands)
def experiments() -> None:
    """Compare the arms of a route's experiment. Declare one in a route, by a template: freehold apply."""


@experiments.command()
@click.argument("name")
@click.option("--since", metavar="TIME", help="Calls from then on, as 2026-11-21T00:00:00Z. [default: since it is declared as it is]")  # fmt: skip
@json_option
@click.pass_context
def show(ctx: click.Context, *, name: str, since: str | None, as_json: bool) -> None:
    """Print calls, errors, cost, latency and scores of each arm of the route NAME, and differences from the first arm.

    Intervals hold at every look: look as often as you like.
    """
    chosen = settings(ctx)
    output = chosen.output
    with connected(chosen) as client:
        told = client.request("GET", f"/v1/experiments/{name}", query={"since": since})
    if output.as_json:
        output.json(told)
        return
    output.say(f"{told['name']}, calls since {told['since']}; cost in {told['currency']}, times in ms")
    for step in told["steps"]:
        output.say(f"{step['at']}  canary at {step['percent']:g} % ({step['status']}): {step['reason']}")
    rows = [row for arm in told["arms"] for row in _rows(arm)]
    columns = ("ARM", "CALLS", "MEASURE", "ESTIMATE", "95 % INTERVAL", "AGAINST THE FIRST")
    output.table(columns, rows, empty="No arms.")
    if told["waiting_calls"]:
        output.warn(f"{told['waiting_calls']} calls of this server are not counted yet")


def _rows(arm: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    percent = "" if arm["percent"] is None else f" ({arm['percent']:g} %)"
    for number, (measure, one) in enumerate(arm["measures"].items()):
        whose = (f"{arm['arm']}{percent}", f"{arm['calls']:,}") if number == 0 else ("", "")
        yield (
            *whose,
            measure,
            _number(one["estimate"]),
            _interval(one),
            _against(arm["differences"].get(measure)),
        )


def _against(one: dict[str, Any] | None) -> str:
    if one is None:
        return ""
    sign = "+" if one["estimate"] >= 0 else ""
    return f"{sign}{_number(one['estimate'])} {_interval(one)}{', decided' if one['decided'] else ''}"


def _interval(one: dict[str, Any]) -> str:
    if one["low"] is None or one["high"] is None:
        return "too few"
    return f"{_number(one['low'])} to {_number(one['high'])}"


def _number(value: float | None) -> str:
    """Four digits, and no exponent: the cost of a call has its first digit late."""
    return "-" if value is None else f"{Decimal(f'{value:.4g}'):f}"
