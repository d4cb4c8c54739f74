"""A kept response or a conversation, as a person reads it: who said what, and how it was made. What stands above it: _session_view.py."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.markup import escape

from freehold.cli._output import Output, short

SAID_CHARS_MAX: Final = 2_000
Json = dict[str, Any]


def show_kept(output: Output, events: Sequence[Json]) -> None:
    attempts = told_count = 0
    for event in events:
        match event["type"]:
            case "freehold.response_begun":
                attempts += 1
            case "freehold.response_handed_back":
                attempts -= 1
            case "freehold.response_told":
                told_count = event["first"] + event["count"]
            case "freehold.response_ended":
                for line in _making(event, attempts, told_count):
                    output.say(line)
                for item in event["output"]:
                    output.say(_said(item))
            case "freehold.response_asked":
                if event["conversation_id"]:
                    output.say(f"[dim]in the conversation {event['conversation_id']}[/dim]")
                if event.get("instructions"):
                    output.say(f"[bold]instructions[/bold]  {escape(_short(str(event['instructions'])))}")
                for item in event["input"]:
                    output.say(_said(item))
            case "freehold.item_added":
                output.say(_said(event["item"]))
            case "freehold.item_erased":
                output.say(f"[dim]deleted: {escape(event['item_id'])}[/dim]")
            case _:
                pass


def _making(event: Json, attempts: int, told_count: int) -> Iterator[str]:
    parts = [event["status"]]
    if attempts > 1:
        parts.append(f"{attempts} attempts")
    if told_count:
        parts.append(f"{told_count} events of its stream kept")
    if usage := event.get("usage"):
        parts.append(f"{usage['input_tokens']} tokens in, {usage['output_tokens']} out")
    yield f"[dim]{' · '.join(parts)}[/dim]"
    if error := event.get("error"):
        yield f"[red]{escape(str(error.get('code')))}: {escape(str(error.get('message')))}[/red]"


def _said(item: Json) -> str:
    match item.get("type", "message"):
        case "message":
            who, what = item.get("role", ""), _text(item.get("content"))
        case "function_call" | "custom_tool_call" as kind:
            who, what = kind, f"{item.get('name')} {item.get('arguments', item.get('input', ''))}"
        case str(kind):
            who, what = kind, _text(item.get("output", item.get("summary", "")))
        case _:
            who, what = "item", ""
    return f"[bold]{escape(str(who))}[/bold]  {escape(_short(what))}"


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(
        str(part.get("text") or f"({part.get('type')})") for part in parts if isinstance(part, dict)
    )


def _short(text: str) -> str:
    return short(text, width=SAID_CHARS_MAX)
