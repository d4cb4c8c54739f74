"""`freehold retention`: which sessions would go by the declared policies, letting them go, and what is left of them."""

from typing import Any

import click

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._group import Commands
from freehold.cli._output import ago, short


@click.group(cls=Commands)
def retention() -> None:
    """Show what retention policies let go of, and do it now. Declare policies by a template: freehold apply."""


@retention.command()
@click.option("--sessions", "limit", type=click.IntRange(0, 1000), default=0, metavar="N", help="Name the first N sessions that would go.")  # fmt: skip
@json_option
@click.pass_context
def plan(ctx: click.Context, *, limit: int, as_json: bool) -> None:
    """Say what would be deleted or ended now, by policy. Nothing changes."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        found = client.request("GET", "/v1/retention", query={"limit": limit or 1})
    if chosen.output.as_json:
        chosen.output.json(found)
        return
    rows = [
        (
            one["name"] or "(configuration)",
            _kept(one),
            str(one["sessions"]),
            str(one["due"]),
            str(one["forked"]),
            str(one["waiting_due"]),
            ago(one["oldest_at"]) if one["oldest_at"] else "",
        )
        for one in found["policies"]
    ]
    columns = ("POLICY", "KEEPS", "SESSIONS", "DUE", "HELD BY FORKS", "TOO LONG", "OLDEST")
    chosen.output.table(columns, rows, empty="No policies.")
    for one in found["due"][:limit]:
        chosen.output.say(f"  {one['session_id']}  {one['policy'] or '(configuration)'}")


@retention.command()
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
@click.pass_context
def run(ctx: click.Context, *, yes: bool, as_json: bool) -> None:
    """Delete and end now what `plan` says; otherwise it is done every hour."""
    chosen = settings(ctx)
    if chosen.output.as_json and not yes:
        raise click.UsageError("with --json nobody can be asked: give --yes, too")
    with connected(chosen) as client:
        policies = client.request("GET", "/v1/retention", query={"limit": 1})["policies"]
        due, waiting = sum(one["due"] for one in policies), sum(one["waiting_due"] for one in policies)
        if (due or waiting) and not yes:
            click.confirm(f"Delete {due} sessions for good, and end {waiting}?", abort=True)
        done = client.request("POST", "/v1/retention/run", body={})["data"]
    if chosen.output.as_json:
        chosen.output.json(done)
        return
    _tell_runs(ctx, done, empty="Nothing was due.")


@retention.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@json_option
@click.pass_context
def history(ctx: click.Context, *, limit: int, as_json: bool) -> None:
    """How many sessions went when, by which policy."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        found = client.request("GET", "/v1/retention/runs", query={"limit": limit})["data"]
    if chosen.output.as_json:
        chosen.output.json(found)
        return
    _tell_runs(ctx, found, empty="Nothing has gone yet.")


@retention.command()
@click.argument("session_id", required=False)
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@json_option
@click.pass_context
def evidence(ctx: click.Context, *, session_id: str | None, limit: int, as_json: bool) -> None:
    """Approvals kept of sessions that are gone: what was asked, who decided what, and what ran on it."""
    chosen = settings(ctx)
    query = {"session_id": session_id, "limit": limit}
    with connected(chosen) as client:
        found = client.request("GET", "/v1/retention/evidence", query=query)["data"]
    if chosen.output.as_json:
        chosen.output.json(found)
        return
    rows = [
        (
            one["session_id"],
            one["event"]["processed_at"][:19].replace("T", " "),
            _told(one["event"]),
            one["keep_until"][:10],
        )
        for one in found
    ]
    chosen.output.table(("SESSION", "AT (UTC)", "WHAT", "KEPT UNTIL"), rows, empty="Nothing is kept.")


def _kept(one: dict[str, Any]) -> str:
    if one["hold"]:
        return "held"
    parts = [] if one["days"] is None else [f"{one['days']:g} days"]
    if one["waiting_days"] is not None:
        parts.append(f"waiting {one['waiting_days']:g}")
    if one["evidence_days"] is not None:
        parts.append(f"evidence {one['evidence_days']:g}")
    return ", ".join(parts) or "for ever"


def _tell_runs(ctx: click.Context, runs: list[dict[str, Any]], *, empty: str) -> None:
    rows = [
        (
            one["at"][:19].replace("T", " "),
            one["policy"] or "(configuration)",
            one["by"] or "(hourly)",
            str(one["deleted"]),
            str(one["ended"]),
            str(one["evidence"]),
        )
        for one in runs
    ]
    columns = ("AT (UTC)", "POLICY", "BY", "DELETED", "ENDED", "EVENTS OF EVIDENCE")
    settings(ctx).output.table(columns, rows, empty=empty)


def _told(event: dict[str, Any]) -> str:
    match event["type"]:
        case "freehold.call_awaited":
            awaits = event["awaits"]
            return f"asked: {awaits['tool']}/{awaits['function']} {short(awaits['arguments'], width=60)}"
        case "user.tool_confirmation":
            verb = "allowed" if event["result"] == "allow" else "denied"
            return f"{verb} by {event['freehold']['by']}"
        case _:
            return f"ran: {event['tool']}/{event['function']} {short(event['input'], width=60)}"
