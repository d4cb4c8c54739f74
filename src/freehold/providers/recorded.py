"""Providers: answers that were recorded before, played back word for word. For tests and for replaying sessions.

A recording is a file of JSON lines (`line` makes them). A line with a `request` answers requests of that hash, in the file's
order; a line without answers whatever comes next in turn. What is not recorded is an error, never an invention. Where the
model's name stands in the request it is not compared, nor whether a stream was asked for: only what the model would read.
"""

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, NoReturn

import msgspec
from msgspec import Struct, structs

from freehold.catalog.catalog import ProviderRow
from freehold.core.errors import BadRequest, FreeholdError, NotFound, TooLarge, Unavailable, Unsupported
from freehold.core.messages import ModelRequest
from freehold.core.ports import ModelInfo, Provider
from freehold.core.stream import StreamEvent
from freehold.providers._http import HttpPool

RECORDING_BYTES_MAX: Final = 64 * 1024 * 1024


class RecordedError(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`code` is an error's from core/errors.py. It comes after the line's events, so an answer can break off."""

    code: str
    message: str
    retry_after_s: float | None = None


class Recording(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    request: str | None = None
    events: tuple[StreamEvent, ...] = ()
    error: RecordedError | None = None


def hash_of(request: ModelRequest) -> str:
    plain = structs.replace(request, model="", stream=False)
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()


def line(
    request: ModelRequest | None, events: Sequence[StreamEvent], error: FreeholdError | None = None
) -> bytes:
    """One line of a recording, with its end."""
    failed = None if error is None else RecordedError(error.code, error.message, error.retry_after_s)
    recording = Recording(
        request=None if request is None else hash_of(request), events=tuple(events), error=failed
    )
    return msgspec.json.encode(recording) + b"\n"


def read(path: Path) -> Sequence[Recording]:
    """Raises NotFound, TooLarge, and BadRequest naming the line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(f"the recording {path} cannot be read: {error.strerror}") from error
    if len(data) > RECORDING_BYTES_MAX:
        raise TooLarge(f"the recording {path} is over RECORDING_BYTES_MAX = {RECORDING_BYTES_MAX}")
    decoder = msgspec.json.Decoder(Recording)
    recordings = []
    for number, text in enumerate(data.splitlines(), 1):
        if text.strip():
            try:
                recordings.append(decoder.decode(text))
            except msgspec.DecodeError as error:
                raise BadRequest(str(error), field=f"{path}: line {number}") from error
    return recordings


class Recorded:
    """Each line is played once. `is_language_model` is false: none is asked."""

    wire: str | None = None
    is_language_model = False

    def __init__(self, name: str, recordings: Sequence[Recording]) -> None:
        self.name = name
        self._in_turn = [one for one in recordings if one.request is None]
        self._by_hash: dict[str, list[Recording]] = {}
        for one in recordings:
            if one.request is not None:
                self._by_hash.setdefault(one.request, []).append(one)
        self._in_turn.reverse()
        for same in self._by_hash.values():
            same.reverse()

    def call(self, request: ModelRequest) -> "Playing":
        return Playing(self._next(request))

    def forward(self, body: bytes, *, model: str, stream: bool, headers: Mapping[str, str]) -> NoReturn:
        raise Unsupported(f"{self.name} plays back values, not bytes ({len(body)} came): call it")

    async def models(self) -> Sequence[ModelInfo]:
        return (ModelInfo(provider=self.name, name="recorded"),)

    def _next(self, request: ModelRequest) -> Recording:
        wanted = hash_of(request)
        same = self._by_hash.get(wanted)
        if same:
            return same.pop()
        if self._in_turn:
            return self._in_turn.pop()
        why = (
            "all its answers to this request were played"
            if same is not None
            else "it has no answer to this request"
        )
        raise NotFound(f"the recording of {self.name} is at its end: {why} (request {wanted[:12]})")


class Playing:
    __slots__ = ("_recording",)

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    async def __aenter__(self) -> AsyncIterator[StreamEvent]:
        if self._recording.error is not None and not self._recording.events:
            raise _error(self._recording.error)
        return _Events(self._recording)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        return False


class _Events:
    __slots__ = ("_error", "_events")

    def __init__(self, recording: Recording) -> None:
        self._events: Iterator[StreamEvent] = iter(recording.events)
        self._error = recording.error

    def __aiter__(self) -> "_Events":
        return self

    async def __anext__(self) -> StreamEvent:
        for event in self._events:
            return event
        if self._error is not None:
            raise _error(self._error)
        raise StopAsyncIteration


def _error(recorded: RecordedError) -> FreeholdError:
    kinds = {kind.code: kind for kind in FreeholdError.__subclasses__()}
    kind = kinds.get(recorded.code, Unavailable)
    return kind(recorded.message, retry_after_s=recorded.retry_after_s)


def create(row: ProviderRow, key: str | None, *, headers: Mapping[str, str], pool: HttpPool) -> Provider:
    """`base_url` is `file:PATH`. Reads the file now."""
    scheme, _, path = row.base_url.partition(":")
    if scheme != "file" or not path:
        raise BadRequest("expected file:PATH of a recording", field="base_url")
    if key is not None or headers:
        raise BadRequest("a recording takes no credential and no headers", field="api_key")
    return Recorded(row.name, read(Path(path.removeprefix("//"))))
