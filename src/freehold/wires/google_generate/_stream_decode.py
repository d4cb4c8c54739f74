"""Wires, Google: a provider's stream to events. Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent

Every chunk is a piece of an answer in the shape of a whole one. Texts grow from chunk to chunk, everything else comes whole. There is
no event that ends it: the last chunk has a reason to finish, and then the bytes are over.
"""

import re
from typing import Final

from msgspec import Raw

from freehold.core.errors import BadRequest, BrokenOff
from freehold.core.messages import AnswerPart, Reasoning, Text, ToolCall, Usage
from freehold.core.stream import (
    ArgumentsAdded,
    Finished,
    OpaqueSet,
    PartFinished,
    PartStarted,
    Started,
    StreamEvent,
    TextAdded,
    UsageReported,
)
from freehold.core.validation import decode
from freehold.wires._fields import OBJECT, UNREADABLE, extra_of
from freehold.wires._google_errors import error_inside
from freehold.wires._sse import SseReader
from freehold.wires.google_generate._response import (
    CANDIDATE_SHAPE,
    CHUNK,
    FINISH,
    Candidate,
    Chunk,
    Origin,
    candidate_fields,
    candidate_parts,
    reason_of,
    refusal_in,
    unusual,
    vendor_fields,
    whole_parts,
)
from freehold.wires.google_generate._seals import SEALED, THOUGHT
from freehold.wires.google_generate._shapes import NAME
from freehold.wires.google_generate._usage import usage_from

TAIL_BYTES: Final = 8 * 1024
"""An error in the middle may come as bare JSON, not as an event: so much of the end is kept to find it there."""

_BARE_ERROR: Final = re.compile(rb'(?:^|[\r\n])\s*(\[?\s*\{\s*"error".*)', re.DOTALL)


class GoogleStreamDecoder:
    __slots__ = (
        "_calls",
        "_fields",
        "_last",
        "_open",
        "_origin",
        "_parts",
        "_provider",
        "_sse",
        "_tail",
        "_usage",
    )

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._sse = SseReader()
        self._origin: Origin | None = None
        self._open: Text | Reasoning | None = None  # The part whose text may go on.
        self._parts = 0
        self._calls: list[AnswerPart] = []
        self._usage = Usage()
        self._last: Candidate | None = None  # That with the reason to finish.
        self._fields: dict[str, Raw] = {}
        self._tail = b""

    def feed(self, data: bytes) -> list[StreamEvent]:
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        events: list[StreamEvent] = []
        for _, json in self._sse.feed(data):
            self._chunk(json, events)
        return events

    def end(self) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        for _, json in self._sse.end():
            self._chunk(json, events)
        if self._last is None:
            bare = _BARE_ERROR.search(self._tail)
            found = None if bare is None else error_inside(bare[1])
            raise found or BrokenOff("the stream ended before the answer was finished")
        self._close(events)
        events.append(Finished(reason_of(self._last, self._calls), None, extra_of(NAME, self._fields)))
        return events

    def _chunk(self, json: bytes, events: list[StreamEvent]) -> None:
        try:
            chunk = CHUNK.decode(json)
            refusal = refusal_in(chunk, json)
            if refusal is None:
                self._take(chunk, json, events)
                return
        except (*UNREADABLE, BadRequest) as error:
            if json.strip() == b"[DONE]":  # Some who follow this vendor end as OpenAI does.
                return
            said = f"the stream holds something that is not a piece of an answer: {error}"
            raise BrokenOff(said, detail=json[:1000].decode("utf-8", "replace")) from error
        raise refusal

    def _take(self, chunk: Chunk, json: bytes, events: list[StreamEvent]) -> None:
        origin = self._origin
        if origin is None:
            origin = self._origin = Origin(self._provider, chunk.model_version)
            events.append(Started(chunk.response_id, chunk.model_version))
        candidates = chunk.candidates or []
        if len(candidates) > 1:
            raise BadRequest(f"expected one candidate, got {len(candidates)}", field="candidates")
        self._fields |= vendor_fields(OBJECT.decode(json))
        if candidates:
            self._candidate(candidates[0], origin, events)
        if chunk.usage_metadata is not None:
            usage = usage_from(chunk.usage_metadata)
            if usage != self._usage:
                self._usage = usage
                events.append(UsageReported(usage))

    def _candidate(self, json: Raw, origin: Origin, events: list[StreamEvent]) -> None:
        candidate = decode(bytes(json), CANDIDATE_SHAPE, root="candidates[0]")
        for one in candidate_parts(candidate):
            for part in whole_parts(one, origin):
                self._part(part, events)
        self._fields |= candidate_fields(OBJECT.decode(json))
        if candidate.finish_reason is not None:
            self._last = candidate
            if said := unusual(candidate.finish_reason):
                self._fields[FINISH] = said

    def _part(self, part: AnswerPart, events: list[StreamEvent]) -> None:
        if isinstance(part, Text) and isinstance(self._open, Text) and not part.extra:
            events.append(TextAdded(self._parts - 1, part.text))
        elif isinstance(part, Reasoning) and self._goes_on(part):
            if part.text:
                events.append(TextAdded(self._parts - 1, part.text))
            self._seal(part, events)
        else:
            self._begin(part, events)

    def _goes_on(self, part: Reasoning) -> bool:
        """Whether it is of the thought that is open. A seal that says nothing of thoughts is of whatever was before, and its own part."""
        opaque = part.opaque
        return isinstance(self._open, Reasoning) and opaque is not None and opaque.kind in (THOUGHT, SEALED)

    def _seal(self, part: Reasoning, events: list[StreamEvent]) -> None:
        if part.opaque is not None and part.opaque.kind != THOUGHT:
            events.append(OpaqueSet(self._parts - 1, part.opaque))
            events.append(PartFinished(self._parts - 1))
            self._open = None

    def _begin(self, part: AnswerPart, events: list[StreamEvent]) -> None:
        self._close(events)
        index = self._parts
        self._parts += 1
        match part:
            case Text():
                events += [PartStarted(index, Text("", None, part.extra)), TextAdded(index, part.text)]
                self._open = part
            case Reasoning():
                events.append(PartStarted(index, Reasoning()))
                if part.text:
                    events.append(TextAdded(index, part.text))
                self._open = part
                self._seal(part, events)
            case ToolCall():
                # With its seal from the start: it is known, and some clients' SDKs keep it only from there.
                begun = ToolCall(part.id, part.name, "", part.opaque, None, part.extra)
                told = ArgumentsAdded(index, part.arguments)
                events += [PartStarted(index, begun), told, PartFinished(index)]
                self._calls = [part]
            case _:
                events += [PartStarted(index, part), PartFinished(index)]

    def _close(self, events: list[StreamEvent]) -> None:
        opened, self._open = self._open, None
        if isinstance(opened, Reasoning) and opened.opaque is not None:
            events.append(OpaqueSet(self._parts - 1, opened.opaque))
        if opened is not None:
            events.append(PartFinished(self._parts - 1))
