"""A scripted vendor that speaks OpenAI's Responses, and keeps nothing: it is told so, and seals its reasoning.

Sources: https://platform.openai.com/docs/api-reference/responses, https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from base64 import b64decode
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import structs
from openai.types.responses import response_create_params as params

from tests.gateway._vendors import Asked, Step, reply, sse, stream
from tests.matrix._typed import Violation, violations
from tests.matrix._words import (
    Answer,
    Ask,
    Assistant,
    Call,
    Content,
    Document,
    Image,
    Result,
    Results,
    Thought,
    Tool,
    Turn,
    User,
)
from tests.matrix.vendors import _openai

WIRE = "openai_responses"
TYPE = "openai"
BASE = "/v1"

_INCOMPLETE = {"length": "max_output_tokens"}
_ITEM_KINDS = {"function_call": "fc", "message": "msg", "reasoning": "rs"}


# ------------------------------------------------------------------------------------------ what it was asked


def path(model: str, *, stream: bool) -> str:
    return "/v1/responses"


def wrong(asked: Asked) -> list[Violation]:
    body = asked.json
    kind = (
        params.ResponseCreateParamsStreaming
        if body.get("stream")
        else params.ResponseCreateParamsNonStreaming
    )
    return violations(body, kind) + _kept(body) + _unpaired(body["input"])


def _kept(body: dict[str, Any]) -> list[Violation]:
    """What the types can't say: nothing stays here, so reasoning must come sealed, and go back that way."""
    found: list[Violation] = [] if body.get("store") is False else [("store", "expected false")]
    if "reasoning.encrypted_content" not in body.get("include", ()):
        found.append(("include", "expected reasoning.encrypted_content"))
    return found


def _unpaired(items: Sequence[dict[str, Any]] | str) -> list[Violation]:
    """Every call has its result, and every result its call before it."""
    found: list[Violation] = []
    open_calls: set[str] = set()
    for place, item in enumerate(() if isinstance(items, str) else items):
        if item.get("type") == "function_call":
            open_calls.add(item["call_id"])
        elif item.get("type") == "function_call_output":
            if item["call_id"] not in open_calls:
                found.append((f"input[{place}]", "a result without a call"))
            open_calls.discard(item["call_id"])
    return found + [("input", f"no result of {call_id}") for call_id in open_calls]


def heard(asked: Asked) -> Ask:
    body = asked.json
    items = body["input"]
    items = [{"role": "user", "content": items}] if isinstance(items, str) else list(items)
    system, marked = body.get("instructions", ""), False
    while items and items[0].get("role") in ("system", "developer"):
        content = items.pop(0)["content"]
        marked = isinstance(content, list) and "prompt_cache_breakpoint" in content[-1]
        system += content if isinstance(content, str) else "".join(part["text"] for part in content)
    choice = body.get("tool_choice")
    return Ask(
        turns=_turns(items),
        system=system,
        marked=marked,
        tools=tuple(_tool(tool) for tool in body.get("tools", ())),
        choice=choice["name"] if isinstance(choice, dict) else choice,
        parallel=body.get("parallel_tool_calls"),
        schema=body.get("text", {}).get("format", {}).get("schema"),
        effort=body.get("reasoning", {}).get("effort"),
        tokens_max=body.get("max_output_tokens", 0),
        stream=body.get("stream", False),
    )


def _tool(tool: dict[str, Any]) -> Tool:
    assert tool["type"] == "function"
    parameters = tool["parameters"]
    return Tool(
        tool["name"], tool.get("description") or "", parameters if parameters.get("properties") else None
    )


def _turns(items: Sequence[dict[str, Any]]) -> tuple[Turn, ...]:
    """Items side by side of the assistant are one turn, and so are results."""
    turns: list[Turn] = []
    for item in items:
        match item.get("type", "message"), item.get("role"):
            case "function_call_output", _:
                result = Result(item["call_id"], _content(item["output"]))
                before = turns.pop().results if turns and isinstance(turns[-1], Results) else ()
                turns.append(Results((*before, result)))
            case "message", "user":
                turns.append(User(_content(item["content"])))
            case _:
                before_it = turns.pop() if turns and isinstance(turns[-1], Assistant) else Assistant()
                assert isinstance(before_it, Assistant)
                turns.append(_said(before_it, item))
    return tuple(turns)


def _said(turn: Assistant, item: dict[str, Any]) -> Assistant:
    match item.get("type", "message"):
        case "function_call":
            call = Call(item["call_id"], item["name"], item["arguments"])
            return structs.replace(turn, calls=(*turn.calls, call))
        case "reasoning":
            thought = Thought("".join(piece["text"] for piece in item["summary"]), item["encrypted_content"])
            return structs.replace(turn, thoughts=(*turn.thoughts, thought))
        case "message":
            return structs.replace(turn, text=turn.text + "".join(_content(item["content"])))  # type: ignore[arg-type]
    raise AssertionError(item)


def _content(given: Any) -> Content:
    return (given,) if isinstance(given, str) else tuple(_part(part) for part in given)


def _part(part: dict[str, Any]) -> Any:
    match part["type"]:
        case "input_text" | "output_text":
            return part["text"]
        case "input_image":
            head, _, data = part["image_url"].partition(";base64,")
            return Image(b64decode(data)) if head == "data:image/png" else Image(url=part["image_url"])
        case "input_file":
            head, _, data = part["file_data"].partition(";base64,")
            assert head == "data:application/pdf"
            return Document(b64decode(data), part["filename"])
    raise AssertionError(part)


def can_hear(ask: Ask, client: str) -> Ask:
    """A failed result is told in words; others' marks of what is to be cached are left out. Who limits parallel calls elsewhere
    says the mode, too.
    """
    if client != WIRE and ask.parallel is not None and ask.choice is None:
        ask = structs.replace(ask, choice="auto")
    return structs.replace(ask, marked=ask.marked and client == WIRE, turns=tuple(map(_hearable, ask.turns)))


def _hearable(turn: Turn) -> Turn:
    if not isinstance(turn, Results):
        return turn
    return Results(tuple(map(_in_words, turn.results)))


def _in_words(result: Result) -> Result:
    if not result.failed:
        return result
    return Result(result.call_id, ("Error: ", *result.content))


# ------------------------------------------------------------------------------------------ what it answers


def can_tell(answer: Answer) -> Answer:
    """Not which stop sequence it was, nor that it was one."""
    stop = "end" if answer.stop == "stop_sequence" else answer.stop
    return structs.replace(answer, stop=stop, stop_sequence="")


def whole(answer: Answer) -> list[Step]:
    return reply(msgspec.json.encode(_response(answer, _items(answer))))


def _response(answer: Answer, output: Sequence[Any], *, begun: bool = False) -> dict[str, Any]:
    why = _INCOMPLETE.get(answer.stop)
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "in_progress" if begun else "incomplete" if why else "completed",
        "error": None,
        "incomplete_details": {"reason": why} if why and not begun else None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": "the-model",
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None if begun else _usage(answer),
    }


def _usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.written},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def _items(answer: Answer) -> list[dict[str, Any]]:
    return [item for item, _ in _told(answer)]


def _told(answer: Answer) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each item as it ends, and the events between its beginning and its end."""
    told = [_thought(thought) for thought in answer.thoughts]
    content = [_text(answer.text)] if answer.text else []
    content += [_refusal(answer.refusal)] if answer.refusal else []
    if content:
        parts = [part for part, _ in content]
        events = [
            {**event, "content_index": place} for place, (_, some) in enumerate(content) for event in some
        ]
        told.append(({"type": "message", "role": "assistant", "content": parts}, events))
    told += [_called(call) for call in answer.calls]
    return [(_numbered(item, place), events) for place, (item, events) in enumerate(told)]


def _numbered(item: dict[str, Any], place: int) -> dict[str, Any]:
    status = {} if item["type"] == "reasoning" else {"status": "completed"}
    return {"id": f"{_ITEM_KINDS[item['type']]}_{place}", **status, **item}


def _thought(thought: Thought) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    part = {"type": "summary_text", "text": thought.text}
    name = "response.reasoning_summary_"
    events: list[dict[str, Any]] = [{"type": name + "part.added", "part": {**part, "text": ""}}]
    events += [{"type": name + "text.delta", "delta": half} for half in _halves(thought.text)]
    events += [{"type": name + "text.done", "text": thought.text}, {"type": name + "part.done", "part": part}]
    item = {"type": "reasoning", "summary": [part], "encrypted_content": thought.seal}
    return item, [{**event, "summary_index": 0} for event in events]


def _text(text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    deltas = [{"type": "response.output_text.delta", "delta": half, "logprobs": []} for half in _halves(text)]
    done = {"type": "response.output_text.done", "text": text, "logprobs": []}
    return part, _around(part, {**part, "text": ""}, [*deltas, done])


def _refusal(text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    part = {"type": "refusal", "refusal": text}
    deltas = [{"type": "response.refusal.delta", "delta": half} for half in _halves(text)]
    done = {"type": "response.refusal.done", "refusal": text}
    return part, _around(part, {**part, "refusal": ""}, [*deltas, done])


def _around(part: Any, begun: Any, events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    added = {"type": "response.content_part.added", "part": begun}
    return [added, *events, {"type": "response.content_part.done", "part": part}]


def _called(call: Call) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    name = "response.function_call_arguments."
    deltas = [{"type": name + "delta", "delta": half} for half in _halves(call.arguments)]
    item = {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
    return item, [*deltas, {"type": name + "done", "name": call.name, "arguments": call.arguments}]


def _begun(item: dict[str, Any]) -> dict[str, Any]:
    empty = {"message": {"content": []}, "function_call": {"arguments": ""}, "reasoning": {"summary": []}}
    status = {"status": "in_progress"} if "status" in item else {}
    return {**item, **status, **empty[item["type"]]}


def _halves(text: str) -> list[str]:
    return [text[: len(text) // 2], text[len(text) // 2 :]] if text else []


def pieces(answer: Answer) -> list[bytes]:
    begun = _response(answer, [], begun=True)
    events: list[dict[str, Any]] = [
        {"type": name, "response": begun} for name in ("response.created", "response.in_progress")
    ]
    for place, (item, between) in enumerate(_told(answer)):
        at = {"output_index": place}
        events.append({"type": "response.output_item.added", **at, "item": _begun(item)})
        events += [{**event, **at, "item_id": item["id"]} for event in between]
        events.append({"type": "response.output_item.done", **at, "item": item})
    end = _response(answer, _items(answer))
    events.append({"type": f"response.{end['status']}", "response": end})
    numbered = ({**event, "sequence_number": number} for number, event in enumerate(events))
    return [sse(event, name=True) for event in numbered]


def streamed(pieces: Sequence[Step]) -> list[Step]:
    return stream(*pieces)


def comment() -> bytes:
    return b": keep-alive\n\n"


fault = _openai.fault


def fault_piece(message: str) -> bytes:
    error = {"type": "error", "code": "server_error", "message": message, "param": None, "sequence_number": 9}
    return sse(error, name=True)
