"""The answer as it comes: stream events, and the two directions between a stream and a whole answer.

`fold(unfold(r)) == r` for every response. Parts are numbered from 0 in order of appearance; several may be open at once
(vendors interleave parallel tool calls). An error in the middle is an exception out of the iterator, not an event.
"""

from collections.abc import Iterable, Iterator
from typing import TypeAlias, assert_never

from msgspec import Struct, structs

from freehold.core.errors import BrokenOff
from freehold.core.messages import (
    AnswerPart,
    Carried,
    Extra,
    Media,
    ModelResponse,
    Opaque,
    Reasoning,
    Refusal,
    StopReason,
    Text,
    ToolCall,
    Usage,
)


class Started(Struct, frozen=True, tag="started", omit_defaults=True):
    """First, exactly once."""

    id: str
    model: str
    extra: Extra = {}


class PartStarted(Struct, frozen=True, tag="part_started"):
    """Opens part `index`. `part` holds what is known so far; deltas add to it. A Media or Carried part comes whole."""

    index: int
    part: AnswerPart


class TextAdded(Struct, frozen=True, tag="text_added"):
    """To a Text, Refusal or Reasoning part."""

    index: int
    text: str


class ArgumentsAdded(Struct, frozen=True, tag="arguments_added"):
    """A piece of a ToolCall's JSON text; cut anywhere."""

    index: int
    json: str


class OpaqueSet(Struct, frozen=True, tag="opaque_set"):
    """The vendor's seal of a Reasoning or ToolCall part; comes at most once a part."""

    index: int
    opaque: Opaque


class PartFinished(Struct, frozen=True, tag="part_finished", omit_defaults=True):
    """`extra` is what the vendor said of a Text part while it came (its citations); it joins the part's own."""

    index: int
    extra: Extra = {}


class UsageReported(Struct, frozen=True, tag="usage_reported"):
    """So far, in total: the last one counts."""

    usage: Usage


class Finished(Struct, frozen=True, tag="finished", omit_defaults=True):
    """Last, exactly once; a stream without it was broken off. (Usage may come just before, never after.)"""

    stop_reason: StopReason
    stop_sequence: str | None = None
    extra: Extra = {}


StreamEvent: TypeAlias = (
    Started | PartStarted | TextAdded | ArgumentsAdded | OpaqueSet | PartFinished | UsageReported | Finished
)


def unfold(response: ModelResponse) -> Iterator[StreamEvent]:
    """The stream that folds back to `response`; each part in one piece."""
    yield Started(response.id, response.model, response.extra)
    for index, part in enumerate(response.content):
        yield from _unfold_part(index, part)
    yield UsageReported(response.usage)
    yield Finished(response.stop_reason, response.stop_sequence)


def _unfold_part(index: int, part: AnswerPart) -> Iterator[StreamEvent]:
    match part:
        case Text() | Refusal():
            yield PartStarted(index, structs.replace(part, text=""))
            if part.text:
                yield TextAdded(index, part.text)
        case Reasoning():
            yield PartStarted(index, Reasoning())
            if part.text:
                yield TextAdded(index, part.text)
            if part.opaque is not None:
                yield OpaqueSet(index, part.opaque)
        case ToolCall():
            # The seal goes first: not every dialect can tell its client of one once the call has begun.
            yield PartStarted(index, structs.replace(part, arguments=""))
            if part.arguments:
                yield ArgumentsAdded(index, part.arguments)
        case Media() | Carried():
            yield PartStarted(index, part)
        case _ as unreachable:
            assert_never(unreachable)
    yield PartFinished(index)


class Folding:
    """Builds a response from a stream, one event at a time. `partial()` gives what has come so far, for a cut stream."""

    __slots__ = (
        "_extra",
        "_finished",
        "_id",
        "_model",
        "_opaque",
        "_part_extra",
        "_parts",
        "_pieces",
        "_usage",
        "first_part_seen",
    )

    def __init__(self) -> None:
        self._id = ""
        self._model = ""
        self._extra: Extra = {}
        self._parts: dict[int, AnswerPart] = {}
        self._pieces: dict[int, list[str]] = {}
        self._opaque: dict[int, Opaque] = {}
        self._part_extra: dict[int, Extra] = {}
        self._usage = Usage()
        self._finished: Finished | None = None
        self.first_part_seen = False

    @property
    def finished(self) -> bool:
        return self._finished is not None

    @property
    def usage(self) -> Usage:
        return self._usage

    def add(self, event: StreamEvent) -> None:
        # Quicker than a match, whose isinstance a Struct's type makes slow when it says no: 0.3 us a class.
        if type(event) is TextAdded:
            self._pieces.setdefault(event.index, []).append(event.text)
        elif type(event) is ArgumentsAdded:
            self._pieces.setdefault(event.index, []).append(event.json)
        elif type(event) is PartStarted:
            self._parts[event.index] = event.part
            self.first_part_seen = True
        elif type(event) is OpaqueSet:
            self._opaque[event.index] = event.opaque
        elif type(event) is UsageReported:
            self._usage = event.usage
        elif type(event) is Started:
            self._id, self._model, self._extra = event.id, event.model, event.extra
        elif type(event) is Finished:
            self._finished = event
        elif type(event) is PartFinished and event.extra:
            self._part_extra[event.index] = event.extra

    def response(self) -> ModelResponse:
        """The whole answer. Raises BrokenOff when `Finished` has not come."""
        if self._finished is None:
            raise BrokenOff("the answer ended before it was finished")
        return self._build(self._finished)

    def partial(self) -> ModelResponse:
        return self._build(self._finished or Finished("end_turn"))

    def _build(self, end: Finished) -> ModelResponse:
        return ModelResponse(
            id=self._id,
            model=self._model,
            content=tuple([self._part(index) for index in sorted(self._parts)]),
            stop_reason=end.stop_reason,
            stop_sequence=end.stop_sequence,
            usage=self._usage,
            extra=_merged(self._extra, end.extra),
        )

    def _part(self, index: int) -> AnswerPart:
        part = self._parts[index]
        added = "".join(self._pieces.get(index, ()))
        opaque = self._opaque.get(index)
        if type(part) is ToolCall and opaque is None:  # The frequent one before a match that has to say no.
            return structs.replace(part, arguments=part.arguments + added) if added else part
        match part:
            case Text():
                extra = _merged(part.extra, self._part_extra.get(index, {}))
                return Text(part.text + added, part.cache, extra)
            case Refusal():
                return Refusal(part.text + added)
            case Reasoning():
                return Reasoning(part.text + added, opaque or part.opaque)
            case ToolCall():
                return structs.replace(part, arguments=part.arguments + added, opaque=opaque or part.opaque)
            case Media() | Carried():
                return part
            case _ as unreachable:
                assert_never(unreachable)


def _merged(first: Extra, second: Extra) -> Extra:
    if not second:
        return first
    wires = {*first, *second}
    return {wire: {**first.get(wire, {}), **second.get(wire, {})} for wire in wires}


def identified(event: StreamEvent, answer: str) -> StreamEvent:
    """With the ids that its vendor left out; clients' libraries want them. Only Started and PartStarted have any.

    `answer` names this answer and no other: a client finds a call by its id among those of all turns.
    """
    if type(event) is Started and not event.id:
        return structs.replace(event, id=answer)
    if type(event) is PartStarted and type(event.part) is ToolCall and not event.part.id:
        return PartStarted(event.index, structs.replace(event.part, id=f"call_{answer}_{event.index}"))
    return event


def identified_whole(response: ModelResponse, answer: str) -> ModelResponse:
    """As `identified`, of a whole answer."""
    nameless = [part for part in response.content if type(part) is ToolCall and not part.id]
    if response.id and not nameless:
        return response
    return fold(identified(event, answer) for event in unfold(response))


def fold(events: Iterable[StreamEvent]) -> ModelResponse:
    """The whole answer. Raises BrokenOff when the stream did not finish."""
    folding = Folding()
    for event in events:
        folding.add(event)
    return folding.response()
