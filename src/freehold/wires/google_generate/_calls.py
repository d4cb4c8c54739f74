"""Wires, Google: which result answers which call, and whose turn is whose.

This vendor's ids are optional: a call without one gets its number in the conversation, so that it has the same in every later turn,
and a result without one answers the first call of its name that is still open. A client that keeps a stream's chunks as they came
has one turn in several contents: they are joined again, and so are the pieces of a thought.
"""

from collections.abc import Sequence
from typing import Final, TypeGuard

import msgspec
from msgspec import Raw, structs

from freehold.core.messages import Message, Part, Reasoning, Text, ToolCall, ToolResult
from freehold.wires._fields import own
from freehold.wires.google_generate._seals import SEALED, THOUGHT
from freehold.wires.google_generate._shapes import NAME

_NAME: Final = "name"


def joined(contents: Sequence[Message]) -> tuple[Message, ...]:
    """Messages of the vendor's two roles to the heart's; results are messages of their own there."""
    calls = _Calls()
    messages: list[Message] = []
    for content in contents:
        if content.role == "assistant":
            _put_assistant(messages, calls, content)
        else:
            _put_user(messages, calls, content)
    return tuple(messages)


def _put_assistant(messages: list[Message], calls: "_Calls", content: Message) -> None:
    parts: list[Part] = []
    if messages and messages[-1].role == "assistant" and not content.extra and not messages[-1].extra:
        parts += messages.pop().content
    goes_on = bool(parts)  # Whether what comes first may be the rest of a text.
    for part in content.content:
        before = parts[-1] if parts else None
        if isinstance(part, ToolCall):
            parts.append(calls.told(part))
        elif isinstance(part, Reasoning) and isinstance(before, Reasoning) and _goes_on(before, part):
            parts[-1] = Reasoning(before.text + part.text, part.opaque)
        elif goes_on and _is_plain(part) and isinstance(before, Text) and not before.extra:
            parts[-1] = Text(before.text + part.text)
        elif not (_is_plain(part) and not part.text):
            parts.append(part)
        goes_on = False
    messages.append(Message("assistant", tuple(parts), None, content.extra))


def _is_plain(part: Part) -> TypeGuard[Text]:
    return isinstance(part, Text) and not part.extra


def _goes_on(before: Reasoning, part: Reasoning) -> bool:
    opaque = part.opaque
    unsealed = before.opaque is None or before.opaque.kind == THOUGHT
    return unsealed and (opaque is None or opaque.wire != NAME or opaque.kind in (THOUGHT, SEALED))


def _put_user(messages: list[Message], calls: "_Calls", content: Message) -> None:
    run: list[Part] = []
    results = False
    for part in content.content:
        is_result = isinstance(part, ToolResult)
        if run and is_result != results:
            _put_run(messages, run, results=results)
            run = []
        results = is_result
        run.append(calls.answered(part) if isinstance(part, ToolResult) else part)
    if run or not content.content:
        _put_run(messages, run, results=results)
    if content.extra:
        messages[-1] = structs.replace(messages[-1], extra=content.extra)


def _put_run(messages: list[Message], run: list[Part], *, results: bool) -> None:
    if results and messages and messages[-1].role == "tool" and not messages[-1].extra:
        run = [*messages.pop().content, *run]
    messages.append(Message("tool" if results else "user", tuple(run)))


class _Calls:
    """The conversation's calls so far."""

    __slots__ = ("_count", "_names", "_open")

    def __init__(self) -> None:
        self._count = 0
        self._open: dict[str, list[str]] = {}
        self._names: dict[str, str] = {}

    def told(self, call: ToolCall) -> ToolCall:
        self._count += 1
        if not call.id:
            call = structs.replace(call, id=f"call_{self._count}")
        self._open.setdefault(call.name, []).append(call.id)
        self._names[call.id] = call.name
        return call

    def answered(self, result: ToolResult) -> ToolResult:
        """The result's own name stays only where no call says it."""
        fields = dict(own(result.extra, NAME))
        name = msgspec.json.decode(fields[_NAME], type=str)
        waiting = self._open.get(name, [])
        call_id = result.call_id or (waiting[0] if waiting else f"call_of_{name}")
        if call_id in waiting:
            waiting.remove(call_id)
        if self._names.get(call_id) == name:
            del fields[_NAME]
        return structs.replace(result, call_id=call_id, extra={NAME: fields} if fields else {})


def names_of(message: Message) -> dict[str, str]:
    """Call ids to the functions' names, which results must say here."""
    return {part.id: part.name for part in message.content if isinstance(part, ToolCall)}


def name_in(result: ToolResult) -> str | None:
    given: Raw | None = own(result.extra, NAME).get(_NAME)
    return None if given is None else msgspec.json.decode(given, type=str)
