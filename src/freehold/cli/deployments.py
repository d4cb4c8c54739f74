"""`freehold deployments`: agents that are set to work by a schedule, or by hand. Declaring them: `freehold apply`, or Anthropic's SDK."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final
from zoneinfo import ZoneInfo

import click
from rich.markup import escape

from freehold.cli._connection import Settings, connected, json_option, settings
from freehold.cli._group import Commands
from freehold.cli._output import Output, ago
from freehold.core.schedules import Cron, Once, Schedule
from freehold.runtime.schedules import change_at, check, upcoming

PATH: Final = "/v1/deployments"
RUNS_PATH: Final = "/v1/deployment_runs"
NEXT_MAX: Final = 1000


@click.group(cls=Commands)
def deployments() -> None:
    """Agents that are set to work: list them, run, pause, and see when they run next."""


@deployments.command("list")
@click.option("--agent", metavar="NAME", help="Those of one agent.")
@click.option("--status", type=click.Choice(["active", "paused"]))
@click.option("--archived", is_flag=True, help="Also those that were taken out of use.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@json_option
@click.pass_context
def list_deployments(
    ctx: click.Context, *, agent: str | None, status: str | None, archived: bool, limit: int, as_json: bool
) -> None:
    """Deployments, newest first."""
    chosen = settings(ctx)
    query = {"agent_id": agent, "status": status, "include_archived": "true" if archived else None}
    with connected(chosen) as client:
        found = list(client.pages(PATH, query=query | {"limit": min(limit, 100)}, limit=limit))
    if chosen.output.as_json:
        chosen.output.json(found)
        return
    rows = [
        (
            one["id"],
            one["name"],
            one["agent"]["id"],
            _status(one),
            _schedule_words(one),
            _moment(_next_at(one)),
        )
        for one in found
    ]
    columns = ("DEPLOYMENT", "NAME", "AGENT", "STATUS", "SCHEDULE", "NEXT")
    chosen.output.table(
        columns,
        rows,
        empty="No deployments: declare one in a template, see docs/deployments.md",
        cut=("NAME", "AGENT"),
    )


@deployments.command()
@click.argument("deployment_id")
@json_option
@click.pass_context
def show(ctx: click.Context, *, deployment_id: str, as_json: bool) -> None:
    """Show a deployment, and its last runs."""
    chosen = settings(ctx)
    output = chosen.output
    with connected(chosen) as client:
        found = client.request("GET", f"{PATH}/{deployment_id}")
        if output.as_json:
            output.json(found)
            return
        last = client.request("GET", RUNS_PATH, query={"deployment_id": deployment_id, "limit": 5})["data"]
    ours = found["freehold"]
    output.say(f"[bold]{found['id']}[/bold]  {escape(found['name'])}: {_status(found)}")
    version = f" version {found['agent']['version']}" if found["agent"]["version"] else ", its newest version"
    output.say(f"agent {found['agent']['id']}{version}, with the rights of {ours['created_by']}")
    output.say(f"{escape(_schedule_words(found))}; missed: {ours['missed']}, overlap: {ours['overlap']}")
    output.say(f"[dim]next {_moment(_next_at(found))}, last {_moment(ours['last_run_at'])}[/dim]")
    _runs_table(output, last)


@deployments.command()
@click.argument("deployment_id")
@json_option
@click.pass_context
def run(ctx: click.Context, *, deployment_id: str, as_json: bool) -> None:
    """Run a deployment now, whatever its schedule says."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        begun = client.request("POST", f"{PATH}/{deployment_id}/run")
    if chosen.output.as_json:
        chosen.output.json(begun)
    elif begun["error"]:
        raise click.ClickException(f"{begun['id']} began no session: {begun['error']['message']}")
    chosen.output.say(f"{begun['id']} began {begun['session_id']}; follow it:")
    chosen.output.command(f"  freehold sessions tail {begun['session_id']}")


@deployments.command()
@click.argument("deployment_id")
@json_option
@click.pass_context
def pause(ctx: click.Context, *, deployment_id: str, as_json: bool) -> None:
    """Begin nothing by schedule until `unpause`. It can still be run by hand."""
    _change(settings(ctx), deployment_id, "pause")


@deployments.command()
@click.argument("deployment_id")
@json_option
@click.pass_context
def unpause(ctx: click.Context, *, deployment_id: str, as_json: bool) -> None:
    """Go on with the schedule. What passed meanwhile counts as missed."""
    _change(settings(ctx), deployment_id, "unpause")


def _change(chosen: Settings, deployment_id: str, change: str) -> None:
    with connected(chosen) as client:
        found = client.request("POST", f"{PATH}/{deployment_id}/{change}")
    chosen.output.done(found, f"{found['id']} is {found['status']}")


@deployments.command()
@click.argument("deployment_id", required=False)
@click.option("--failed", is_flag=True, help="Only those that began no session.")
@click.option("--trigger", type=click.Choice(["schedule", "manual"]))
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@json_option
@click.pass_context
def runs(
    ctx: click.Context,
    *,
    deployment_id: str | None,
    failed: bool,
    trigger: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Runs, newest first: of all deployments, or of one."""
    chosen = settings(ctx)
    query = {
        "deployment_id": deployment_id,
        "has_error": "true" if failed else None,
        "trigger_type": trigger,
        "limit": min(limit, 1000),
    }
    with connected(chosen) as client:
        found = list(client.pages(RUNS_PATH, query=query, limit=limit))
    if chosen.output.as_json:
        chosen.output.json(found)
    else:
        _runs_table(chosen.output, found)


@deployments.command("next")
@click.argument("deployment_id", required=False)
@click.option("--count", type=click.IntRange(1, NEXT_MAX), default=5, show_default=True)
@click.option(
    "--cron", metavar="EXPRESSION", help="Not a deployment's, but of this expression, like '0 9 * * mon-fri'."
)
@click.option(
    "--timezone", metavar="ZONE", default="UTC", show_default=True, help="For --cron, like Europe/Berlin."
)
@json_option
@click.pass_context
def next_runs(
    ctx: click.Context,
    *,
    deployment_id: str | None,
    count: int,
    cron: str | None,
    timezone: str,
    as_json: bool,
) -> None:
    """Print when a deployment runs next, in its own time zone and in UTC, and what changes of the clock do to it."""
    if (deployment_id is None) == (cron is None):
        raise click.UsageError("expected a deployment's id, or --cron")
    chosen = settings(ctx)
    if cron is not None:
        check(tried := Cron(expression=cron, timezone=timezone))
        schedule: Schedule | None = tried
    else:
        with connected(chosen) as client:
            schedule = _schedule(client.request("GET", f"{PATH}/{deployment_id}"))
    coming = [] if schedule is None else list(islice(_coming(schedule), count))
    if chosen.output.as_json:
        chosen.output.json(coming)
        return
    rows = [(one["local"], one["at"], one["note"] or "") for one in coming]
    chosen.output.table(("LOCAL", "UTC", ""), rows, empty="It does not run by itself any more.")
    if any(one["note"] for one in coming):
        chosen.output.warn("a change of the clock has a part in some of these")


def _coming(schedule: Schedule) -> Iterator[dict[str, Any]]:
    zone = ZoneInfo(schedule.timezone) if isinstance(schedule, Cron) else UTC
    offset = None
    for slot in upcoming(schedule, datetime.now(UTC)):
        local = slot.astimezone(zone)
        note = _NOTES.get(change_at(schedule, slot) or "")
        if offset not in {None, local.utcoffset()}:
            note = note or "the clock has changed since the time before"
        offset = local.utcoffset()
        yield {
            "at": slot.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "local": local.isoformat(sep=" ", timespec="minutes"),
            "note": note,
        }


_NOTES: Final = {
    "skipped": "the clocks skip its time that day: runs right after",
    "repeated": "the clocks show this time twice that day",
}


def _schedule(found: dict[str, Any]) -> Schedule | None:
    cron, at = found["schedule"], found["freehold"]["at"]
    if cron is not None:
        return Cron(expression=cron["expression"], timezone=cron["timezone"])
    return None if at is None else Once(at=datetime.fromisoformat(at))


def _runs_table(output: Output, found: list[dict[str, Any]]) -> None:
    rows = [
        (
            one["id"],
            one["deployment_id"],
            one["trigger_context"]["type"],
            _moment(one["trigger_context"].get("scheduled_at")),
            ago(one["created_at"]),
            one["session_id"] or f"{one['freehold']['code']}: {one['error']['message']}",
        )
        for one in found
    ]
    columns = ("RUN", "DEPLOYMENT", "BY", "FOR", "BEGAN", "SESSION")
    output.table(columns, rows, empty="No runs yet.", cut=("DEPLOYMENT", "RUN"))


def _status(one: dict[str, Any]) -> str:
    return "archived" if one["archived_at"] else str(one["status"])


def _schedule_words(one: dict[str, Any]) -> str:
    cron, at = one["schedule"], one["freehold"]["at"]
    if cron is not None:
        return f"{cron['expression']} ({cron['timezone']})"
    return f"once, at {_moment(at)}" if at is not None else "by hand"


def _next_at(one: dict[str, Any]) -> str | None:
    return None if one["status"] == "paused" else one["freehold"]["next_run_at"]


def _moment(at: str | None) -> str:
    return "-" if at is None else f"{datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M}Z"
