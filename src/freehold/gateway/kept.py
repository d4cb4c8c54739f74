"""Gateway: what clients of OpenAI's Responses ask that needs an answer to be kept. None is kept here, so it is refused aloud.

Also where bytes pass through: the vendor would keep it under the one key that all callers share.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw, Struct

from freehold.core.errors import BadRequest, Unsupported

WIRE: Final = "openai_responses"

_NOTHING: Final = (b"null", b"false")


class _Kept(Struct):
    previous_response_id: Raw = Raw(b"null")
    conversation: Raw = Raw(b"null")
    background: Raw = Raw(b"null")


_KEPT: Final = msgspec.json.Decoder(_Kept)
_WHY: Final[Mapping[str, str]] = {
    "previous_response_id": "answers are not kept here: send the conversation's items again in `input`",
    "conversation": "conversations are not kept here: send their items again in `input`",
    "background": "an answer that nobody waits for would have to be kept here: wait for it, or let a session do the work",
}
_MARKS: Final = tuple(f'"{name}"'.encode() for name in _WHY)
"""Searched first, since bodies are large and hardly one has them."""


def refuse_kept(wire: str, body: bytes) -> None:
    """Raises Unsupported, naming the field and what to do instead."""
    if wire != WIRE or not any(mark in body for mark in _MARKS):
        return
    try:
        kept = _KEPT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON object: {error}") from error
    for name, why in _WHY.items():
        if bytes(getattr(kept, name)) not in _NOTHING:
            raise Unsupported(why, field=name)
