"""An event of a session's log in one line: `sessions show --log` and `tail`. The timeline is _timeline_view.py's."""

from typing import Any, Final

from rich.markup import escape

from freehold.cli._output import WIDE, Output, seconds, short
from freehold.core.messages import JsonObject

DETAIL_WIDTH_MIN: Final = 20
"""Where a terminal leaves less, it may fold the line."""


def say_event(output: Output, place: str, event: JsonObject) -> None:
    """`place` stands before it. At a terminal it is cut to its width; elsewhere it is whole."""
    kind = event["type"]
    room = max(DETAIL_WIDTH_MIN, output.out.width - len(f"{place}  {kind} "))
    detail = short(_detail(event), width=room)
    output.say(f"[dim]{escape(place)}[/dim]  [bold]{kind}[/bold] {escape(detail)}".rstrip())


def _detail(event: JsonObject) -> Any:
    ours = event.get("freehold") or {}
    match event["type"]:
        case "user.message" | "agent.message":
            return " ".join(block.get("text", "") for block in event["content"])
        case "agent.tool_use" | "agent.custom_tool_use":
            return f"{event['name']} {short(event['input'], width=WIDE)}"
        case "freehold.tool_started":
            return f"{event['function']} attempt {event['attempt']}, {event['effect']}, key {event['idempotency_key']}"
        case "agent.tool_result":
            return f"{'failed' if event['is_error'] else 'ok'} in {seconds(ours.get('duration_ms', 0))}"
        case "freehold.call_awaited":
            until = f" until {event['until']}" if event.get("until") else ""
            return f"{event['tool_use_id']}: {event['awaits']['type']}{until}"
        case "user.tool_confirmation":
            return f"{event['result']} {event['tool_use_id']}"
        case "span.model_request_end":
            return f"{ours.get('served_by') or ours.get('model')} in {seconds(ours.get('duration_ms', 0))}"
        case "session.error":
            return event["error"]["message"]
        case "session.status_idle" | "session.status_terminated":
            return ours.get("outcome") or (event.get("stop_reason") or {}).get("type", "")
        case _:
            return ""
