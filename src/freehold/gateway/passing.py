"""Gateway: bodies that pass through as bytes. Only the top level of the JSON is read; what it holds stays as it came.

The client's wire and the provider's are the same here, so nothing is translated. Two things may change on the way: `model`,
where the provider's name differs from what the client wrote, and `stream_options`, so that a stream is metered even if its
client didn't ask to be told; what the provider then adds for it is taken out again.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from freehold.core.errors import BadRequest

OPENAI_CHAT: Final = "openai_chat"
EVENT_BYTES_MAX: Final = 1024 * 1024
_WITH_USAGE: Final = Raw(b'{"include_usage":true}')
_OUTPUT_FIELDS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_DIGITS_MAX: Final = 12
_fields = msgspec.json.Decoder(dict[str, Raw])
_str = msgspec.json.Decoder(str)
_bool = msgspec.json.Decoder(bool | None)
_names = msgspec.json.Decoder(list[str] | None)


class _Metadata(msgspec.Struct):
    user_id: str | None = None


_user = msgspec.json.Decoder(str | _Metadata | None)
_options = msgspec.json.Decoder(dict[str, Raw] | None)
_MISREAD: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Envelope:
    """A request's body, its model, and whether it wants a stream: all that must be known to pass it on."""

    __slots__ = ("addressed", "body", "fields", "model", "stream")

    def __init__(self, body: bytes, *, model: str | None = None, stream: bool = False) -> None:
        """Raises BadRequest. Keeps the body as it is. `model` and `stream` are given where the wire says them in the address.

        `fields` is the top level, each field's JSON as it came.
        """
        self.body = body
        try:
            self.fields = fields = _fields.decode(body)
        except _MISREAD as error:
            raise BadRequest(f"the body is no JSON object: {error}") from error
        self.addressed = model is not None
        if model is None:
            try:
                model = _str.decode(fields["model"])
                stream = "stream" in fields and bool(_bool.decode(fields["stream"]))
            except (KeyError, *_MISREAD) as error:
                raise _misread(fields) from error
        self.model, self.stream = model, stream
        if not model.isprintable():  # It goes into a header, and into a record that could not be written.
            raise BadRequest(
                f"expected the name of a model, got control characters: {model[:40]!r}", field="model"
            )

    def further_models(self) -> Sequence[str]:
        """Models that the provider may answer with instead (OpenRouter's `models`): a policy must allow them too.

        https://openrouter.ai/docs/features/model-routing. Raises BadRequest.
        """
        given = self.fields.get("models")
        if given is None:
            return ()
        try:
            return _names.decode(given) or ()
        except _MISREAD as error:
            raise BadRequest("expected a list of models' names", field="models") from error

    def end_user(self) -> str | None:
        """Whom the client asks for, where it says so: `user` (OpenAI), `metadata.user_id` (Anthropic). What is none is none."""
        if (given := self.fields.get("user")) is None:
            if (metadata := self.fields.get("metadata")) is None:
                return None
            given = metadata
        try:
            named = _user.decode(given)
        except _MISREAD:
            return None
        return named if isinstance(named, str) or named is None else named.user_id

    def asks_for_usage(self) -> bool:
        """Raises BadRequest for options that are none."""
        given = self.fields.get("stream_options")
        if given is None:
            return False
        try:
            asked = (_options.decode(given) or {}).get("include_usage")
            return asked is not None and bool(_bool.decode(asked))
        except _MISREAD as error:
            raise BadRequest(
                "expected an object with include_usage: true or false", field="stream_options"
            ) from error

    def output_tokens_max(self) -> int | None:
        """As it is said at the top level; what is no number there is the vendor's to refuse."""
        for name in _OUTPUT_FIELDS:
            given = self.fields.get(name)
            if given is not None:
                digits = bytes(given)
                return int(digits) if digits.isdigit() and len(digits) < _DIGITS_MAX else None
        return None

    def cache_key(self) -> str:
        """OpenAI's `prompt_cache_key`: requests that have it in common begin alike."""
        given = self.fields.get("prompt_cache_key")
        return "" if given is None else bytes(given).decode("utf-8", "replace")

    def passed_as(self, model: str, *, metered: bool) -> bytes:
        """The body for a provider that calls the model `model`; `metered` adds OpenAI's wish for usage.

        Always put together anew: in a body that has a field twice, the provider must not find another one than we did.
        """
        fields = self.fields
        if model != self.model and not self.addressed:
            fields = {**fields, "model": Raw(msgspec.json.encode(model))}
        if metered:
            given = fields.get("stream_options")
            options = (_options.decode(given) if given is not None else None) or {}
            wish = Raw(msgspec.json.encode({**options, "include_usage": True})) if options else _WITH_USAGE
            fields = {**fields, "stream_options": wish}
        return msgspec.json.encode(fields)


def _misread(fields: Mapping[str, Raw]) -> BadRequest:
    """What of a body's top level cannot be read."""
    model = fields.get("model")
    if model is None:
        return BadRequest("expected the name of a model, the field is missing", field="model")
    try:
        _str.decode(model)
    except _MISREAD:
        return BadRequest(f"expected the name of a model as text, got {_start(model)}", field="model")
    return BadRequest(f"expected true or false, got {_start(fields['stream'])}", field="stream")


def _start(raw: Raw) -> str:
    return bytes(raw)[:40].decode("utf-8", "replace")


class _Chunk(msgspec.Struct):
    choices: list[Raw] | None = None
    usage: Raw = Raw(b"null")


_chunk = msgspec.json.Decoder(_Chunk)
_NO_CHOICES: Final = re.compile(rb'"choices"\s*:\s*\[\s*\]')
"""What every usage chunk has, and hardly another: the rest is not parsed."""


class UsageHidden:
    """Takes OpenAI's closing usage chunk (`"choices":[]`) out of a stream whose client didn't ask for it.

    Bytes are held back only while an event is not complete, up to EVENT_BYTES_MAX; everything else passes as it came.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may go on to the client; may be empty."""
        if self._held:
            data, self._held = self._held + data, b""
        end = _end_of_events(data)
        if len(data) - end <= EVENT_BYTES_MAX:
            data, self._held = data[:end], data[end:]
        return data if _NO_CHOICES.search(data) is None else self._filtered(data)

    def end(self) -> bytes:
        held, self._held = self._held, b""
        return b"" if held and _is_usage(held) else held

    def _filtered(self, data: bytes) -> bytes:
        separator = b"\r\n\r\n" if b"\r\n\r\n" in data else b"\n\n"
        events = data.split(separator)
        kept = [event for event in events if not _is_usage(event)]
        return data if len(kept) == len(events) else separator.join(kept)


def _end_of_events(data: bytes) -> int:
    """Where the last whole event ends; 0 where none does."""
    plain, carriage = data.rfind(b"\n\n"), data.rfind(b"\r\n\r\n")
    return max(plain + 2 if plain >= 0 else 0, carriage + 4 if carriage >= 0 else 0)


def _is_usage(event: bytes) -> bool:
    _, found, text = event.partition(b"data:")
    if not found:
        return False
    try:
        chunk = _chunk.decode(text)
    except _MISREAD:
        return False
    return chunk.choices == [] and bytes(chunk.usage) != b"null"
