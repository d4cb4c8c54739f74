"""`freehold sessions`: what runs, ran and waits: list, show, tail, approve, pause, resume, cancel, kill, archive, delete."""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

import click
import msgspec
from rich.markup import escape

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._event_lines import say_event
from freehold.cli._group import Commands
from freehold.cli._kept_view import show_kept
from freehold.cli._output import Output, ago, short
from freehold.cli._session_view import SessionView
from freehold.cli._sessions_export import KINDS, export
from freehold.cli._sessions_travel import diff, fork, replay
from freehold.cli._timeline import turns_of
from freehold.cli._timeline_view import TimelineView
from freehold.client.client import Client
from freehold.client.errors import ApiError
from freehold.runtime.kinds import kind_of

AT_WORK: Final = ("running", "waiting", "paused")
STATUS_WORDS: Final = {"running": "working"}
"""As the API asks for them, where `running` is also what goes on by itself after a time."""


class _Age(click.ParamType[timedelta]):
    """`90s`, `30min`, `2h`, `7d`: how long ago."""

    name = "age"
    _SIZES: Final = {"s": 1, "min": 60, "h": 3600, "d": 86_400}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|min|h|d)", value)
        if found is None:
            self.fail(f"expected a time like 90s, 30min, 2h or 7d, got {value!r}", param, ctx)
        return timedelta(seconds=float(found[1]) * self._SIZES[found[2]])


AGE: Final = _Age()


@click.group(cls=Commands)
def sessions() -> None:
    """List, show, follow, export, approve, pause, cancel, fork and replay sessions."""


for _command in (fork, export, replay, diff):
    sessions.add_command(_command)


@sessions.command("list")
@click.option(
    "--status",
    type=click.Choice(["idle", "running", "waiting", "paused", "terminated"]),
    help="Only those. What waits for somebody to act, or is paused, is idle too.",
)
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="agent",
    show_default=True,
    help="Sessions of agents, or kept answers of the Responses API, or conversations.",
)
@click.option("--sort", type=click.Choice(["newest", "cost"]), default="newest", show_default=True)
@click.option("--agent", metavar="NAME", help="Only sessions with this agent.")
@click.option("--deployment", metavar="ID", help="Only sessions that this deployment's runs began.")
@click.option(
    "--older-than", type=AGE, metavar="AGE", help="Only those begun longer ago: 90s, 30min, 2h, 7d."
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@json_option
@click.pass_context
def list_sessions(
    ctx: click.Context,
    *,
    status: str | None,
    kind: str,
    sort: str,
    agent: str | None,
    deployment: str | None,
    older_than: timedelta | None,
    limit: int,
    as_json: bool,
) -> None:
    """Sessions, newest or dearest first."""
    chosen = settings(ctx)
    query = {
        "statuses[]": STATUS_WORDS.get(status or "", status),
        "kind": kind,
        "sort": sort,
        "agent_id": agent,
        "deployment_id": deployment,
    }
    with connected(chosen) as client:
        found = list(
            islice(
                _older(client.pages("/v1/sessions", query=query | {"limit": min(limit, 100)}), older_than),
                limit,
            )
        )
    if chosen.output.as_json:
        chosen.output.json(found)
        return
    _table(chosen.output, found)


def _table(output: Output, found: Sequence[dict[str, Any]]) -> None:
    rows = [
        (
            one["id"],
            one["agent"]["name"] or one["freehold"]["model"] or "",
            one["freehold"]["status"],
            str(one["freehold"]["version"]),
            one["freehold"]["cost"]["shown"],
            ago(one["updated_at"]),
            one["title"] or "",
        )
        for one in found
    ]
    by = "AGENT" if not found or kind_of(found[0]["id"]) == "agent" else "MODEL"
    columns = ("SESSION", by, "STATUS", "EVENTS", "COST", "CHANGED", "TITLE")
    output.table(columns, rows, empty="No such sessions.", cut=("TITLE", by))


def _older(found: Iterable[dict[str, Any]], age: timedelta | None) -> Iterator[dict[str, Any]]:
    """Those begun longer ago than `age`; all of them, without."""
    before = None if age is None else datetime.now(UTC) - age
    for one in found:
        if before is None or datetime.fromisoformat(one["created_at"]) < before:
            yield one


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
    one = f"/v1/sessions/{session_id}"
    with connected(chosen) as client:
        session = client.request("GET", one)
        events = list(client.pages(f"{one}/events", query={"include": "freehold", "limit": 1000}))
        family = client.request("GET", f"{one}/family")
    if output.as_json:
        output.json({"session": session, "events": events, **family})
        return
    view = SessionView(output, session, events, family)
    view.head()
    if log_only:
        for event in events:
            say_event(output, f"{event['freehold']['cursor']:>7}  {event['processed_at'][11:23]}", event)
        return
    if session["freehold"].get("kind", "agent") != "agent":
        show_kept(output, events)
        view.family()
        return
    beside = sum(one["freehold"]["cost"]["pico"] for one in family["subagents"])
    TimelineView(output).show(
        turns_of(events, now=datetime.now(UTC)), subagents_pico=beside, between=(view.waits, view.family)
    )


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
                say_event(chosen.output, f"{event.cursor or '':>7}", event.body)


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
            short(one["awaits"]["arguments"], width=60),
            (one.get("until") or "")[:16].replace("T", " "),
        )
        for one in asked
    ]
    chosen.output.table(
        ("SESSION", "CALL", "TOOL", "ARGUMENTS", "UNTIL (UTC)"),
        rows,
        empty="Nothing waits for approval.",
        cut=("ARGUMENTS", "UNTIL (UTC)"),
        whole=("CALL",),
    )


@sessions.command()
@click.argument("session_id")
@click.argument("call_id")
@click.option("--edit", metavar="JSON", help="Run it with these arguments instead of the model's.")
@click.option("--binding", help="Only what has this binding (approvals --json). [default: what is shown now]")
@json_option
@click.pass_context
def approve(
    ctx: click.Context, *, session_id: str, call_id: str, edit: str | None, binding: str | None, as_json: bool
) -> None:
    """Allow a tool call that waits for approval: what is shown, and nothing that it has become meanwhile."""
    ours = {} if edit is None else {"input": _arguments(edit)}
    event = {"type": "user.tool_confirmation", "tool_use_id": call_id, "result": "allow"}
    _decide(ctx, session_id, event, ours, binding)


@sessions.command()
@click.argument("session_id")
@click.argument("call_id")
@click.option("--reason", default=None, help="Why not; the model is told.")
@click.option("--binding", help="Only what has this binding (approvals --json). [default: what is shown now]")
@json_option
@click.pass_context
def deny(
    ctx: click.Context,
    *,
    session_id: str,
    call_id: str,
    reason: str | None,
    binding: str | None,
    as_json: bool,
) -> None:
    """Deny a tool call that waits for approval."""
    event = {
        "type": "user.tool_confirmation",
        "tool_use_id": call_id,
        "result": "deny",
        "deny_message": reason,
    }
    _decide(ctx, session_id, event, {}, binding)


def _decide(
    ctx: click.Context, session_id: str, event: dict[str, Any], ours: dict[str, Any], binding: str | None
) -> None:
    """Shows what is decided on, decides on just that, and says what still lacks."""
    chosen = settings(ctx)
    one, call_id = f"/v1/sessions/{session_id}", event["tool_use_id"]
    with connected(chosen) as client:
        awaits = _awaited(client, one, call_id)
        bound = event | {"freehold": ours | {"binding": binding or awaits["binding"]}}
        sent = client.request("POST", f"{one}/events", body={"events": [bound]})
    if chosen.output.as_json:
        chosen.output.json(sent)
        return
    given = ours.get("input", awaits["arguments"])
    width = max(40, chosen.output.out.width - 2)
    chosen.output.say(f"{escape(awaits['tool'])}/{escape(awaits['function'])}")
    chosen.output.say(f"  [cyan]{escape(short(given, width=width))}[/cyan]")
    quorum = awaits.get("quorum", 1)
    needs = f"; {quorum} must allow it" if quorum > 1 and event["result"] == "allow" else ""
    chosen.output.say(f"{'allowed' if event['result'] == 'allow' else 'denied'} {call_id}{needs}")


def _awaited(client: Client, path: str, call_id: str) -> dict[str, Any]:
    """What waits for approval under that id: mostly the row knows; while the session still runs, only its log does."""
    calls = (client.request("GET", path)["freehold"]["waits"] or {}).get("calls", ())
    asked = [call["awaits"] for call in calls if call["call_id"] == call_id]
    if not asked:
        query = {"include": "freehold", "types[]": "freehold.call_awaited", "limit": 1000}
        events = client.pages(f"{path}/events", query=query)
        asked = [event["awaits"] for event in events if event["tool_use_id"] == call_id]
    found = [awaits for awaits in asked if awaits["type"] == "approval"]
    if not found:
        raise click.ClickException(
            f"{call_id} waits for no approval there; freehold sessions approvals lists what does"
        )
    last: dict[str, Any] = found[-1]
    return last


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
@click.argument("session_ids", nargs=-1, metavar="[SESSION_ID]...")
@click.option("--agent", metavar="NAME", help="All sessions of this agent that are not at rest.")
@click.option(
    "--older-than",
    type=AGE,
    metavar="AGE",
    help="All that are not at rest and were begun longer ago: 30min, 2h, 7d.",
)
@click.option(
    "--status",
    type=click.Choice(AT_WORK),
    multiple=True,
    help="Of those chosen so, only these. [default: all three]",
)
@click.option(
    "--kind",
    type=click.Choice(["agent", "response"]),
    default="agent",
    show_default=True,
    help="Of those chosen so: sessions of agents, or responses in the background.",
)
@click.option("--reason", default="", help="Why; stands in the logs.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
@click.pass_context
def kill(
    ctx: click.Context,
    *,
    session_ids: tuple[str, ...],
    agent: str | None,
    older_than: timedelta | None,
    status: tuple[str, ...],
    kind: str,
    reason: str,
    yes: bool,
    as_json: bool,
) -> None:
    """End sessions for good: those named, or all that run, wait or are paused and that the options choose.

    \b
      freehold sessions kill --agent shop --older-than 2h --reason "wrong prices"
    """
    chosen = settings(ctx)
    by_options = agent is not None or older_than is not None
    if bool(session_ids) == by_options:
        raise click.UsageError("name sessions, or choose them by --agent and --older-than")
    if by_options and chosen.output.as_json and not yes:
        raise click.UsageError("with --json nobody can be asked: give --yes, too")
    with connected(chosen) as client:
        wanted = list(session_ids)
        if by_options:
            query = {
                "statuses[]": [STATUS_WORDS.get(one, one) for one in status or AT_WORK],
                "agent_id": agent,
                "kind": kind,
                "limit": 100,
            }
            found = list(_older(client.pages("/v1/sessions", query=query), older_than))
            wanted = [one["id"] for one in found]
            if not chosen.output.as_json:
                _table(chosen.output, found)
        if wanted and not yes and not chosen.output.as_json:
            click.confirm(f"End {len(wanted)} session{'s' * (len(wanted) > 1)} for good?", abort=True)
        failed = _end_all(client, chosen.output, wanted, reason)
    if chosen.output.as_json:
        chosen.output.json({"ended": [one for one in wanted if one not in failed], "failed": failed})
    if failed:
        ctx.exit(1)


def _end_all(client: Client, output: Output, wanted: Sequence[str], reason: str) -> dict[str, str]:
    """One that can't be ended keeps nobody from ending the others. Those, and why."""
    failed: dict[str, str] = {}
    for session_id in wanted:
        try:
            _cancel(client, session_id, scope="session", reason=reason)
            output.say(f"ended {session_id}")
        except ApiError as error:
            failed[session_id] = error.message
            output.note.print(f"[red]✗[/red] {session_id}: {escape(error.message)}")
    return failed


@sessions.command()
@click.argument("session_id")
@click.option("--turn", is_flag=True, help="Only stop the turn that runs; the session can go on.")
@click.option("--reason", default="", help="Why; stands in the log.")
@json_option
@click.pass_context
def cancel(ctx: click.Context, *, session_id: str, turn: bool, reason: str, as_json: bool) -> None:
    """Stop a session for good (or, with --turn, what it is doing)."""
    chosen = settings(ctx)
    scope = "turn" if turn else "session"
    with connected(chosen) as client:
        session = _cancel(client, session_id, scope=scope, reason=reason)
    chosen.output.done(session, f"cancelled the {scope} {session_id}")


def _cancel(client: Client, session_id: str, *, scope: str, reason: str) -> Any:
    """A response is one turn, and is told no reason."""
    if kind_of(session_id) == "response":
        return client.request("POST", f"{_own_path(session_id)}/cancel")
    body = {"scope": scope, "reason": reason}
    return client.request("POST", f"/v1/sessions/{session_id}/cancel", body=body)


def _own_path(session_id: str) -> str:
    """Of the API that a session's kind belongs to."""
    kind = kind_of(session_id)
    return f"/v1/{'session' if kind == 'agent' else kind}s/{session_id}"


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
        deleted = [client.request("DELETE", _own_path(session_id)) for session_id in session_ids]
    chosen.output.done(deleted, f"deleted {', '.join(session_ids)}")


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise click.BadParameter(f"expected a JSON object: {error}", param_hint="--edit") from error
    if not isinstance(found, dict):
        raise click.BadParameter("expected a JSON object", param_hint="--edit")
    return found


def _steer(ctx: click.Context, session_id: str, verb: str, body: dict[str, Any] | None, done: str) -> None:
    chosen = settings(ctx)
    with connected(chosen) as client:
        session = client.request("POST", f"/v1/sessions/{session_id}/{verb}", body=body)
    chosen.output.done(session, f"{done} {session_id}")
