"""Providers: a body of OpenAI's chat completions in an address's own words: what the many servers that follow it do differently."""

from typing import Final, Literal

import msgspec
from msgspec import Raw

from freehold.wires import holds

_WITH_USAGE: Final = Raw(b'{"include_usage":true}')
_OPTIONS: Final = b'"stream_options"'
_TOKENS_MAX_FIELDS: Final = ("max_tokens", "max_completion_tokens")


class Fitting:
    """`stream_options`: the address takes them. `tokens_max_field` is what it calls the limit; None: it takes either."""

    __slots__ = ("_other_field", "_other_field_json", "_stream_options", "_tokens_max_field")

    def __init__(
        self, *, stream_options: bool, tokens_max_field: Literal["max_tokens", "max_completion_tokens"] | None
    ) -> None:
        self._stream_options = stream_options
        self._tokens_max_field = tokens_max_field or ""
        self._other_field = next((one for one in _TOKENS_MAX_FIELDS if one != tokens_max_field), "")
        self._other_field_json = f'"{self._other_field}"'.encode()

    def fitted(self, body: bytes, *, metered: bool) -> bytes:
        """Untouched, and not even parsed, where it has none of the differing fields."""
        marked, wanted = body.find(b"_") >= 0, metered and self._stream_options
        rename = marked and bool(self._tokens_max_field) and holds(body, self._other_field_json, b"_")
        options = marked and (wanted or not self._stream_options) and holds(body, _OPTIONS, b"_")
        add, drop = wanted and not options, options and not self._stream_options
        if not (rename or add or drop):
            return body
        fields = msgspec.json.decode(body, type=dict[str, Raw])
        if rename and self._other_field in fields:
            limit = fields.pop(self._other_field)
            fields.setdefault(self._tokens_max_field, limit)
        if drop:
            fields.pop("stream_options", None)
        if add:
            fields.setdefault("stream_options", _WITH_USAGE)
        return msgspec.json.encode(fields)
