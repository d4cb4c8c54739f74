"""`freehold sessions`: what runs, ran and waits: list, show, tail, approve, pause, resume, cancel, kill, archive, delete."""

from typing import Any

import click
import msgspec
from rich.markup import escape

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._output import Output, ago
from freehold.cli._sessions_travel import diff, export, fork, replay
from freehold.cli._timeline import turns_of
from freehold.cli._timeline_view import TimelineView


@click.group()
def sessions() -> None:
    """List, show, follow, approve, pause, cancel, fork and replay sessions."""


for _command in (fork, export, replay, diff):
    sessions.add_command(_command)


@sessions.command("list")
@click.option(
    "--status",
    type=click.Choice(["idle", "running", "waiting", "paused", "terminated"]),
    help="Only those. What waits for somebody, or is paused, is idle too.",
)
@click.option("--sort", type=click.Choice(["newest", "cost"]), default="newest", show_default=True)
@click.option("--agent", metavar="NAME", help="Only sessions with this agent.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@json_option
@click.pass_context
def list_sessions(
    ctx: click.Context, *, status: str | None, sort: str, agent: str | None, limit: int, as_json: bool
) -> None:
    """Sessions, newest or dearest first."""
    chosen = settings(ctx)
    query = {"statuses[]": status, "sort": sort, "agent_id": agent, "limit": min(limit, 100)}
    with connected(chosen) as client:
        found = list(client.pages("/v1/sessions", query=query, limit=limit))
    if chosen.output.as_json:
        chosen.output.json(found)
        return
    rows = [
        (
            one["id"],
            one["agent"]["name"],
            one["freehold"]["status"],
            str(one["freehold"]["version"]),
            one["freehold"]["cost"]["shown"],
            ago(one["updated_at"]),
            one["title"] or "",
        )
        for one in found
    ]
    chosen.output.table(
        ("SESSION", "AGENT", "STATUS", "EVENTS", "COST", "CHANGED", "TITLE"), rows, empty="No sessions yet."
    )


@sessions.command()
@click.argument("session_id")
@click.option(
    "--log",
    "log_only",
    is_flag=True,
    help="Every event of the log, a line each, instead of the timeline.",
)
@json_option
@click.pass_context
def show(ctx: click.Context, *, session_id: str, log_only: bool, as_json: bool) -> None:
    """Show a session's timeline: what was said and done, where the time went and what it cost."""
    chosen = settings(ctx)
    output = chosen.output
    with connected(chosen) as client:
        session = client.request("GET", f"/v1/sessions/{session_id}")
        events = list(
            client.pages(f"/v1/sessions/{session_id}/events", query={"include": "freehold", "limit": 1000})
        )
    if output.as_json:
        output.json({"session": session, "events": events})
        return
    _tell_head(output, session)
    if log_only:
        for event in events:
            output.say(
                f"[dim]{event['freehold']['cursor']:>7}  {event['processed_at'][11:23]}[/dim]  {_line(event)}"
            )
        return
    TimelineView(output).show(turns_of(events))


def _tell_head(output: Output, session: dict[str, Any]) -> None:
    agent, ours = session["agent"], session["freehold"]
    output.say(f"[bold]{session['id']}[/bold]  {escape(session['title'] or '')}")
    parts = [
        f"{agent['name']} version {agent['version']}",
        ours["status"],
        f"{ours['version']} events",
        f"begun {ago(session['created_at'])}",
    ]
    if ours["origin"]:
        parts.append(f"a fork of {ours['origin']['session_id']} behind its event {ours['origin']['seq']}")
    if ours["parent_id"]:
        parts.append(f"works for {ours['parent_id']}")
    output.say(f"[dim]{escape(' · '.join(parts))}[/dim]")


@sessions.command()
@click.argument("session_id")
@click.option(
    "--after",
    metavar="CURSOR",
    help="Begin behind this event; 0 is from the first. Default: what comes from now on.",
)
@json_option
@click.pass_context
def tail(ctx: click.Context, *, session_id: str, after: str | None, as_json: bool) -> None:
    """Follow a session's events as they come; Ctrl-C ends."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        if after is None:
            after = str(client.request("GET", f"/v1/sessions/{session_id}")["freehold"]["version"])
        for event in client.stream(
            f"/v1/sessions/{session_id}/events/stream", query={"include": "freehold"}, after=after
        ):
            if chosen.output.as_json:
                chosen.output.json_line(event.body)
            else:
                chosen.output.say(f"[dim]{event.cursor or '':>7}[/dim]  {_line(event.body)}")


@sessions.command()
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@json_option
@click.pass_context
def approvals(ctx: click.Context, *, limit: int, as_json: bool) -> None:
    """What waits for somebody's approval."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        found = client.pages(
            "/v1/sessions", query={"statuses[]": "waiting", "limit": min(limit, 100)}, limit=limit
        )
        asked = [
            {"session_id": one["id"], "agent": one["agent"]["name"], **call}
            for one in found
            for call in one["freehold"]["waits"]["calls"]
            if call["awaits"]["type"] == "approval"
        ]
    if chosen.output.as_json:
        chosen.output.json(asked)
        return
    rows = [
        (
            one["session_id"],
            one["call_id"],
            f"{one['awaits']['tool']}/{one['awaits']['function']}",
            one["awaits"]["arguments"][:60],
            (one.get("until") or "")[:16].replace("T", " "),
        )
        for one in asked
    ]
    chosen.output.table(
        ("SESSION", "CALL", "TOOL", "ARGUMENTS", "UNTIL (UTC)"), rows, empty="Nothing waits for approval."
    )


@sessions.command()
@click.argument("session_id")
@click.argument("call_id")
@click.option("--edit", metavar="JSON", help="Run it with these arguments instead of the model's.")
@json_option
@click.pass_context
def approve(ctx: click.Context, *, session_id: str, call_id: str, edit: str | None, as_json: bool) -> None:
    """Allow a tool call that waits for approval."""
    ours = {} if edit is None else {"input": _arguments(edit)}
    event = {"type": "user.tool_confirmation", "tool_use_id": call_id, "result": "allow", "freehold": ours}
    _send(ctx, session_id, event, f"approved {call_id}")


@sessions.command()
@click.argument("session_id")
@click.argument("call_id")
@click.option("--reason", default=None, help="Why not; the model is told.")
@json_option
@click.pass_context
def deny(ctx: click.Context, *, session_id: str, call_id: str, reason: str | None, as_json: bool) -> None:
    """Deny a tool call that waits for approval."""
    event = {
        "type": "user.tool_confirmation",
        "tool_use_id": call_id,
        "result": "deny",
        "deny_message": reason,
    }
    _send(ctx, session_id, event, f"denied {call_id}")


@sessions.command()
@click.argument("session_id")
@click.option("--reason", default="", help="Why; stands in the log.")
@json_option
@click.pass_context
def pause(ctx: click.Context, *, session_id: str, reason: str, as_json: bool) -> None:
    """Let a session finish what runs, and begin nothing new."""
    _steer(ctx, session_id, "pause", {"reason": reason}, "paused")


@sessions.command()
@click.argument("session_id")
@json_option
@click.pass_context
def resume(ctx: click.Context, *, session_id: str, as_json: bool) -> None:
    """Let a paused session go on."""
    _steer(ctx, session_id, "resume", {}, "resumed")


@sessions.command()
@click.argument("session_ids", nargs=-1)
@click.option("--agent", metavar="NAME", help="All running and waiting sessions of this agent.")
@click.option("--reason", default="", help="Why; stands in the logs.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
@click.pass_context
def kill(
    ctx: click.Context,
    *,
    session_ids: tuple[str, ...],
    agent: str | None,
    reason: str,
    yes: bool,
    as_json: bool,
) -> None:
    """End sessions for good: those named, or all of an agent that are not at rest."""
    chosen = settings(ctx)
    if not session_ids and agent is None:
        raise click.UsageError("name sessions, or an agent with --agent")
    with connected(chosen) as client:
        wanted = list(session_ids)
        if agent is not None:
            query = {"statuses[]": ["running", "waiting", "paused"], "agent_id": agent, "limit": 100}
            wanted += [one["id"] for one in client.pages("/v1/sessions", query=query)]
        if wanted and not yes and not chosen.output.as_json:
            click.confirm(f"End {len(wanted)} session(s) for good?", abort=True)
        for session_id in wanted:
            client.request(
                "POST", f"/v1/sessions/{session_id}/cancel", body={"scope": "session", "reason": reason}
            )
            chosen.output.say(f"ended {session_id}")
    if chosen.output.as_json:
        chosen.output.json(wanted)


@sessions.command()
@click.argument("session_id")
@click.option("--turn", is_flag=True, help="Only stop the turn that runs; the session can go on.")
@click.option("--reason", default="", help="Why; stands in the log.")
@json_option
@click.pass_context
def cancel(ctx: click.Context, *, session_id: str, turn: bool, reason: str, as_json: bool) -> None:
    """Stop a session for good (or, with --turn, what it is doing)."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        body = {"scope": "turn" if turn else "session", "reason": reason}
        session = client.request("POST", f"/v1/sessions/{session_id}/cancel", body=body)
    if chosen.output.as_json:
        chosen.output.json(session)
    chosen.output.say(f"cancelled the {'turn' if turn else 'session'} {session_id}")


@sessions.command()
@click.argument("session_id")
@json_option
@click.pass_context
def archive(ctx: click.Context, *, session_id: str, as_json: bool) -> None:
    """Let a session at rest be only read, and leave it out of lists."""
    _steer(ctx, session_id, "archive", None, "archived")


@sessions.command()
@click.argument("session_ids", nargs=-1, required=True, metavar="SESSION_ID...")
@json_option
@click.pass_context
def delete(ctx: click.Context, *, session_ids: tuple[str, ...], as_json: bool) -> None:
    """Delete sessions at rest, with their logs, for good. Cancel those first that run or wait."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        deleted = [client.request("DELETE", f"/v1/sessions/{session_id}") for session_id in session_ids]
    if chosen.output.as_json:
        chosen.output.json(deleted)
    chosen.output.say(f"deleted {', '.join(session_ids)}")


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise click.BadParameter(f"expected a JSON object: {error}", param_hint="--edit") from error
    if not isinstance(found, dict):
        raise click.BadParameter("expected a JSON object", param_hint="--edit")
    return found


def _send(ctx: click.Context, session_id: str, event: dict[str, Any], done: str) -> None:
    chosen = settings(ctx)
    with connected(chosen) as client:
        sent = client.request("POST", f"/v1/sessions/{session_id}/events", body={"events": [event]})
    if chosen.output.as_json:
        chosen.output.json(sent)
    chosen.output.say(done)


def _steer(ctx: click.Context, session_id: str, verb: str, body: dict[str, Any] | None, done: str) -> None:
    chosen = settings(ctx)
    with connected(chosen) as client:
        session = client.request("POST", f"/v1/sessions/{session_id}/{verb}", body=body)
    if chosen.output.as_json:
        chosen.output.json(session)
    chosen.output.say(f"{done} {session_id}")


def _line(event: dict[str, Any]) -> str:
    """One event in one line, with rich's markup."""
    kind = event["type"]
    ours = event.get("freehold") or {}
    match kind:
        case "user.message" | "agent.message":
            text = " ".join(block.get("text", "") for block in event["content"])
            detail = " ".join(text.split())[:100]
        case "agent.tool_use":
            detail = f"{event['name']} {event['input']}"[:100]
        case "freehold.tool_started":
            detail = f"{event['function']} attempt {event['attempt']}, {event['effect']}, key {event['idempotency_key']}"
        case "agent.tool_result":
            detail = f"{'failed' if event['is_error'] else 'ok'} in {ours.get('duration_ms', 0):.0f} ms"
        case "span.model_request_end":
            detail = f"{ours.get('served_by') or ours.get('model')} in {ours.get('duration_ms', 0):.0f} ms"
        case "session.status_idle" | "session.status_terminated":
            detail = ours.get("outcome", "")
        case _:
            detail = ""
    return f"[bold]{kind}[/bold] {escape(detail)}"
