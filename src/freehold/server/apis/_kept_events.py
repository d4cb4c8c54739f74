"""The facts of kept responses and conversations as events of the sessions API: all `freehold.*`, for whoever looks into their logs."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from msgspec import Raw

from freehold.core.response_facts import (
    ConversationEvent,
    ConversationStarted,
    ItemAdded,
    ItemDeleted,
    ItemErased,
    MetadataChanged,
    ResponseAsked,
    ResponseBegun,
    ResponseEnded,
    ResponseEvent,
    ResponseHandedBack,
    ResponseTold,
)

_FIELDS: Final = msgspec.json.Decoder(dict[str, Any])
_REPEATED: Final = ("model", "instructions", "tools", "metadata", "usage", "error", "incomplete_details")
"""Of a response object, what is worth a look besides its output."""

Made = Callable[..., dict[str, Any]]


def kept_bodies(event: ResponseEvent | ConversationEvent, made: Made) -> Iterator[dict[str, Any]]:
    match event:
        case ResponseAsked():
            yield _asked(event, made)
        case ResponseBegun():
            yield made("freehold.response_begun", 0)
        case ResponseHandedBack():
            yield made("freehold.response_handed_back", 0)
        case ResponseTold():
            yield made("freehold.response_told", 0, first=event.first, count=event.count)
        case ResponseEnded():
            if event.asked is not None:
                yield _asked(event.asked, made)
            part = 0 if event.asked is None else 1
            yield made(
                "freehold.response_ended", part, status=event.status, output=event.output, **_said(event.head)
            )
        case ConversationStarted():
            yield made("freehold.conversation_started", 0, metadata=event.metadata, labels=event.labels)
        case ItemAdded():
            yield made("freehold.item_added", 0, item_id=event.id, item=event.item)
        case ItemErased():
            yield made("freehold.item_erased", 0, item_id=event.id)
        case ItemDeleted():
            yield made("freehold.item_deleted", 0, item_id=event.id, seqs=event.seqs)
        case MetadataChanged():
            yield made("freehold.metadata_changed", 0, metadata=event.metadata)


def _asked(event: ResponseAsked, made: Made) -> dict[str, Any]:
    return made(
        "freehold.response_asked",
        0,
        input=event.input,
        previous_response_id=event.previous_id,
        conversation_id=event.conversation_id,
        background=bool(event.request),
        labels=event.labels,
        **_said(event.head),
    )


def _said(head: Raw) -> dict[str, Any]:
    fields = _FIELDS.decode(head or b"{}")
    return {name: fields[name] for name in _REPEATED if fields.get(name)}
