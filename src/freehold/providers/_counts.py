"""Providers: what vendors ask and answer where they count a request's tokens, for the several addresses that speak one wire."""

from typing import Final

import msgspec
from msgspec import Raw

from freehold.core.errors import Unavailable

ANTHROPIC_NOT_COUNTED: Final = frozenset({
    "max_tokens", "stream", "temperature", "top_p", "top_k", "stop_sequences", "metadata", "service_tier", "container",
    "inference_geo", "diagnostics",
})  # fmt: skip
"""Fields of a request that a count's request doesn't have, and is refused with.

https://docs.anthropic.com/en/api/messages-count-tokens
"""

_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_NUMBER: Final = msgspec.json.Decoder(int)


def anthropic_counted(body: bytes) -> dict[str, Raw]:
    fields = _OBJECT.decode(body)
    return {name: value for name, value in fields.items() if name not in ANTHROPIC_NOT_COUNTED}


def count_in(answer: bytes, field: str, *, provider: str) -> int:
    """Raises Unavailable where there is none."""
    try:
        return _NUMBER.decode(_OBJECT.decode(answer)[field])
    except (msgspec.DecodeError, KeyError, UnicodeDecodeError) as error:
        said = f"{provider} answered with something that is no count of tokens"
        raise Unavailable(said, detail=str(error)) from error
