"""`freehold costs`: a month's bill."""

import csv
import sys
from collections.abc import Iterator
from typing import Any, Final

import click

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._group import Command

_TOKENS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)
_COUNTS: Final = ("calls", "unpriced_calls", "estimated_calls", *_TOKENS)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_SHOWN_DECIMALS: Final = 6


@click.command(cls=Command)
@click.option(
    "--by",
    default="model",
    show_default=True,
    metavar="NAMES",
    help="What to cut by, joined by commas: day, organisation, team, user, principal, agent, route, provider, model, region, "
    "outcome, cached, price_source.",
)
@click.option("--month", metavar="YYYY-MM", help="A month of UTC. [default: this one]")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values with exact amounts.")
@click.option(
    "--recount", is_flag=True, help="Add up every record again and compare; fails where they differ."
)
@json_option
@click.pass_context
def costs(
    ctx: click.Context, *, by: str, month: str | None, as_csv: bool, recount: bool, as_json: bool
) -> None:
    """What a month cost: every call, discounts, commitments and bought capacity."""
    chosen = settings(ctx)
    output = chosen.output
    if as_csv and output.as_json:
        raise click.UsageError("--csv and --json exclude each other")
    with connected(chosen) as client:
        query = {"by": by, "month": month, "recount": "true" if recount else None}
        bill = client.request("GET", "/v1/costs", query=query)
    if output.as_json:
        output.json(bill)
    elif as_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows(_csv_rows(bill))
    else:
        columns = [*(name.upper() for name in bill["by"]), "CALLS", "INPUT", "OUTPUT", "AMOUNT"]
        output.table(columns, _table_rows(bill), empty=f"No calls in {bill['month']}.")
    if bill["unpriced_calls"]:
        output.warn(
            f"{bill['unpriced_calls']} of {bill['calls']} calls have no price and are in no amount: declare a price_book for their"
            " models (freehold costs --by model,price_source shows which)"
        )
    if bill["waiting_calls"]:
        output.warn(f"{bill['waiting_calls']} calls of this server are not counted yet")


def _table_rows(bill: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    blanks = [""] * max(0, len(bill["by"]) - 1)
    for line in bill["lines"]:
        tokens = (f"{line['input_tokens']:,}", f"{line['output_tokens']:,}")
        unpriced = f" + {line['unpriced_calls']:,} unpriced" if line["unpriced_calls"] else ""
        amount = f"{_short(line['amount'])} {line['currency']}{unpriced}"
        yield (*(line["group"][name] or "-" for name in bill["by"]), f"{line['calls']:,}", *tokens, amount)
    for one in bill["adjustments"]:
        label = f"{one['reason'].replace('_', ' ')}: {one['name']} ({one['note']})"
        yield _row(bill, blanks, label, "", f"{_short(one['amount'])} {one['currency']}")
    for currency, amount in bill["totals"].items():
        yield _row(bill, blanks, "total", f"{bill['calls']:,}", f"{_short(amount)} {currency}")


def _row(bill: dict[str, Any], blanks: list[str], label: str, calls: str, amount: str) -> tuple[str, ...]:
    """Without anything to cut by, the label stands before the number of calls."""
    if not bill["by"]:
        return (f"{label} {calls}".strip(), "", "", amount)
    return (label, *blanks, calls, "", "", amount)


def _csv_rows(bill: dict[str, Any]) -> Iterator[list[str]]:
    by = bill["by"]
    yield ["month", "kind", *by, "name", "note", *_COUNTS, "amount", "currency"]
    for line in bill["lines"]:
        counts = [str(line[name]) for name in _COUNTS]
        group = [_plain(line["group"][name]) for name in by]
        yield [bill["month"], "usage", *group, "", "", *counts, line["amount"], line["currency"]]
    for one in bill["adjustments"]:
        empty = [""] * len(by), [""] * len(_COUNTS)
        what = [one["name"], one["note"]]
        yield [bill["month"], one["reason"], *empty[0], *what, *empty[1], one["amount"], one["currency"]]


def _plain(text: str) -> str:
    """Names come from callers; no spreadsheet shall take one for a formula (OWASP, CSV injection)."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _short(amount: str) -> str:
    """For people: cut to _SHOWN_DECIMALS, and marked where something was cut off. `--csv` and `--json` are exact."""
    units, _, decimals = amount.partition(".")
    shown = decimals[:_SHOWN_DECIMALS].rstrip("0")
    number = f"{int(units):,}" if units not in {"-0", "0"} else units
    return f"{number}{'.' + shown if shown else ''}{'…' if decimals[_SHOWN_DECIMALS:].strip('0') else ''}"
