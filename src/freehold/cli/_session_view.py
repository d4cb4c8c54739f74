"""What stands above a session's timeline: who it is, for whom or what it waits and since when, who works for it, what was forked from it.

What it waits for is in its row, who has said what of it in its events.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.markup import escape

from freehold.cli._output import Output, age, ago, counted, seconds, short
from freehold.core import pricing

INDENT: Final = "  "
ARGUMENTS_WIDTH_MIN: Final = 40
FAMILY_SHOWN_MAX: Final = 20
_STATUS_STYLES: Final = {"running": "green", "waiting": "yellow", "paused": "yellow", "cancelled": "red"}

Json = dict[str, Any]


class SessionView:
    def __init__(self, output: Output, session: Json, events: Sequence[Json], family: Json) -> None:
        self._output = output
        self._session = session
        self._kind: str = session["freehold"].get("kind", "agent")  # An older server says nothing of it.
        self._events = events
        self._family = family

    def head(self) -> None:
        session, ours = self._session, self._session["freehold"]
        say = self._output.say
        say(f"[bold]{session['id']}[/bold]  {escape(session['title'] or '')}".rstrip())
        status = ours["status"]
        parts = [
            f"{escape(session['agent']['name'])} version {session['agent']['version']}"
            if self._kind == "agent"
            else " by ".join(escape(one) for one in (self._kind, ours["model"]) if one),
            _styled(status),
            counted(ours["version"], "event"),
            f"begun {ago(session['created_at'])}, {session['created_at'][:16].replace('T', ' ')} UTC",
        ]
        if session["archived_at"]:
            parts.append("archived")
        self._output.facts(parts, style="dim")
        if deployment := session["deployment_id"]:
            say(f"[dim]begun by a run of the deployment {deployment}[/dim]")
        if origin := ours["origin"]:
            seq = origin["seq"]
            how = f"a fork of {origin['session_id']} behind its event {seq}"
            say(f"[dim]{how if seq else 'goes on with ' + origin['session_id']}[/dim]")
        if ours["parent_id"]:
            say(f"[dim]works for {ours['parent_id']}[/dim]")

    def waits(self) -> None:
        waits = self._session["freehold"]["waits"]
        if not waits:
            return
        if waits["why"] == "paused":
            self._paused()
        for call in waits.get("calls", ()):
            self._waits_for(call)

    def family(self) -> None:
        subagents, forks = self._family["subagents"], self._family["forks"]
        if subagents:
            depth = _depths(self._session["id"], subagents)
            cost = sum(one["freehold"]["cost"]["pico"] for one in subagents)
            self._output.say(
                f"\n[bold]{counted(len(subagents), 'subagent')}[/bold]  [dim]{pricing.show(cost)} beside this session's own[/dim]"
            )
            for one in subagents[:FAMILY_SHOWN_MAX]:
                self._relative(one, INDENT * depth[one["id"]], one["title"] or "")
        if forks:
            go_on = self._kind == "response"
            head = (
                f"gone on with by {counted(len(forks), 'response')}" if go_on else counted(len(forks), "fork")
            )
            self._output.say(f"\n[bold]{head}[/bold]")
            for one in forks[:FAMILY_SHOWN_MAX]:
                seq = one["freehold"]["origin"]["seq"]
                place = f"behind event {seq}" if seq else one["freehold"]["status"]
                model = f" with {one['freehold']['model']}" if one["freehold"]["model"] else ""
                self._relative(one, INDENT, f"{place}{model}")
        if self._family["more"] or max(len(subagents), len(forks)) > FAMILY_SHOWN_MAX:
            self._output.say(f"[dim]{INDENT}and more: --json has up to 200 of each[/dim]")

    def _relative(self, one: Json, indent: str, about: str) -> None:
        lasted = seconds(one["stats"]["duration_seconds"] * 1000)
        line = f"{indent}{one['id']}  {escape(one['agent']['name'])}  {_styled(one['freehold']['status'])}  {lasted}  {one['freehold']['cost']['shown']}"
        plain = f"{indent}{one['id']}  {one['agent']['name']}  {one['freehold']['status']}  {lasted}  {one['freehold']['cost']['shown']}  "
        room = max(8, self._output.out.width - len(plain))
        self._output.say(f"{line}  [dim]{escape(short(about, width=room))}[/dim]")

    def _paused(self) -> None:
        asked = next(
            (one for one in reversed(self._events) if one["type"] == "freehold.pause_requested"), None
        )
        ours = (asked or {}).get("freehold") or {}
        by = f" by {ours['by']}" if ours.get("by") else ""
        since = f" for {age(asked['processed_at'])}" if asked else ""
        reason = f": {ours['reason']}" if ours.get("reason") else ""
        self._output.say(f"\n[yellow]◷ paused{escape(by)}{since}{escape(reason)}[/yellow]")
        self._hint(f"freehold sessions resume {self._session['id']}")

    def _waits_for(self, call: Json) -> None:
        awaits, call_id = call["awaits"], call["call_id"]
        name, given = self._called(call_id)
        waited = age(self._since(call_id))
        until = f", until {call['until'][:16].replace('T', ' ')} UTC" if call.get("until") else ""
        what = {
            "approval": f"approval of {awaits.get('tool')}/{awaits.get('function')}",
            "client": f"the client's result of {name}",
            "timer": "a time",
            "event": f"{awaits.get('event') or 'an outside event'} about {awaits.get('correlation') or name}",
            "session": f"subagent {awaits.get('session_id')}",
            "place": f"a place of {awaits.get('tool')}, which runs as often as it may",
        }[awaits["type"]]
        self._output.say(f"\n[yellow]◷ waits for {escape(what)}[/yellow] [dim]for {waited}{until}[/dim]")
        match awaits["type"]:
            case "approval":
                self._approval(call_id, awaits)
            case "client":
                self._shown(given)
            case "session":
                self._hint(f"freehold sessions show {awaits['session_id']}")
            case "place":
                self._hint("freehold tools")
            case _:
                pass

    def _approval(self, call_id: str, awaits: Json) -> None:
        self._shown(awaits["arguments"])
        allowed = self._allowed(call_id, awaits["binding"])
        quorum = awaits.get("quorum", 1)
        asked = ", ".join(awaits.get("approvers", ())) or "whoever may approve"
        parts = [f"asked: {asked}"]
        if quorum > 1 or allowed:
            by = f" by {', '.join(allowed)}" if allowed else ""
            parts.append(f"{len(allowed)} of {quorum} allowed it{by}")
        if awaits.get("level"):
            parts.append(f"escalation {awaits['level']}")
        self._output.say(f"{INDENT}[dim]{escape(' · '.join(parts))}[/dim]")
        self._hint(f"freehold sessions approve {self._session['id']} {call_id}")

    def _allowed(self, call_id: str, binding: str) -> list[str]:
        """Who has allowed what waits now; what was said of other arguments, or before it was asked again, counts no more."""
        found: dict[str, None] = {}
        for event in self._events:
            if event.get("tool_use_id") != call_id:
                continue
            if event["type"] == "freehold.call_awaited":
                found = {}
            ours = event.get("freehold") or {}
            if (
                event["type"] == "user.tool_confirmation"
                and event["result"] == "allow"
                and ours.get("binding") == binding
            ):
                found[ours["by"]] = None
        return list(found)

    def _since(self, call_id: str) -> str:
        """When it was first asked, or else (a place has no event of its own) when the session came to rest."""
        asked = [
            one["processed_at"]
            for one in self._events
            if one["type"] == "freehold.call_awaited" and one["tool_use_id"] == call_id
        ]
        return str(asked[0] if asked else self._events[-1]["processed_at"])

    def _called(self, call_id: str) -> tuple[str, Any]:
        for event in reversed(self._events):
            if event.get("id") == call_id:
                return event["name"], event["input"]
        return "a call", None

    def _shown(self, given: Any) -> None:
        if given not in (None, "", {}):
            width = max(ARGUMENTS_WIDTH_MIN, self._output.out.width - len(INDENT))
            self._output.say(f"{INDENT}[cyan]{escape(short(given, width=width))}[/cyan]")

    def _hint(self, command: str) -> None:
        self._output.command(f"{INDENT}{command}")


def _styled(status: str) -> str:
    style = _STATUS_STYLES.get(status)
    return f"[{style}]{status}[/{style}]" if style else status


def _depths(session_id: str, subagents: Sequence[Json]) -> Mapping[str, int]:
    """How deep each stands below the session; oldest first, so whoever one works for was there before."""
    depths = {session_id: 0}
    for one in subagents:
        depths[one["id"]] = depths.get(one["freehold"]["parent_id"], 0) + 1
    return depths
