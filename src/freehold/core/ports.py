"""What the rooms ask of each other. Adapters implement these; server, gateway and runtime see nothing else.

All I/O is async. Whoever opens closes: long-lived things come as async context managers, opened in app.py.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date, datetime
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from msgspec import Struct

from freehold.core.billing import CostSum, Dimension
from freehold.core.embeddings import EmbeddingRequest, EmbeddingResponse
from freehold.core.errors import FreeholdError
from freehold.core.experiments import ArmSums, Canary, CanaryState, CanaryStep, Feedback, Seen, Step
from freehold.core.messages import JsonObject, Media, ModelRequest, ModelResponse, Text, ToolSpec, Usage
from freehold.core.policy import Policy, Principal
from freehold.core.pricing import ModelPrice
from freehold.core.records import CallRecord
from freehold.core.resources import Effect, Kind, Resource, Tool
from freehold.core.session import (
    AwaitsEvent,
    AwaitsSession,
)
from freehold.core.stream import StreamEvent


class Clock(Protocol):
    def now(self) -> datetime:
        """UTC."""
        ...

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        ...

    def monotonic_s(self) -> float:
        """Never goes back. Counted from 1970, by what the time of day was when the process began."""
        ...

    def entropy(self, size_bytes: int) -> bytes: ...


class Principals(Protocol):
    async def current(self, tenant: str, principal_id: str) -> Principal:
        """Who that is now, with the rights of now. Raises Forbidden or Unauthenticated when revoked, expired or gone."""
        ...


# ------------------------------------------------------------------------------------------------ wires


class ErrorBody(Struct, frozen=True):
    """An error in a vendor's dialect. `headers` are lower-cased."""

    status: int
    headers: dict[str, str]
    body: bytes


class StreamDecoder(Protocol):
    """One answer's bytes to events. Any chunking of the same bytes gives the same events."""

    def feed(self, data: bytes) -> Sequence[StreamEvent]:
        """Raises FreeholdError where the vendor reports an error in the middle, BrokenOff where the bytes are not its format."""
        ...

    def end(self) -> Sequence[StreamEvent]:
        """The bytes are over. Raises BrokenOff when the answer was not finished."""
        ...


class StreamEncoder(Protocol):
    """One answer's events to bytes for a client."""

    def encode(self, event: StreamEvent) -> bytes:
        """May be empty where the dialect has nothing to say for this event yet."""
        ...

    def error(self, error: FreeholdError, request_id: str) -> bytes:
        """An error in the middle of the stream, as this dialect tells it; nothing follows."""
        ...

    def end(self) -> bytes:
        """After the last event (OpenAI's `[DONE]`)."""
        ...


class Wire(Protocol):
    """A vendor's format for one model call, both directions, pure. One file a wire, found by its name."""

    name: ClassVar[str]
    stream_content_type: ClassVar[str]

    def decode_request(self, body: bytes) -> ModelRequest:
        """Raises BadRequest with the path of what is wrong."""
        ...

    def encode_request(self, request: ModelRequest, *, provider: str) -> bytes:
        """`request.model` is already the provider's own name. `provider` decides which Opaque data may go along.

        Raises Unsupported with the path of what this wire cannot say.
        """
        ...

    def decode_response(self, body: bytes, *, provider: str) -> ModelResponse: ...

    def encode_response(
        self, response: ModelResponse, *, created: int = 0, request: ModelRequest | None = None
    ) -> bytes:
        """`created` is Unix time in seconds, for dialects that tell it; the provider's own, where it said one, goes first.

        `request` is what is answered, for dialects whose answers repeat it; its messages, which none repeats, may be missing.
        """
        ...

    def stream_decoder(self, *, provider: str) -> StreamDecoder: ...

    def stream_encoder(self, request: ModelRequest, *, created: int = 0) -> StreamEncoder: ...

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError:
        """A vendor's refusal as a cause. `retry-after` is read; the body goes to `detail` only."""
        ...

    def encode_error(self, error: FreeholdError, request_id: str) -> ErrorBody: ...

    def usage_of(self, body: bytes) -> Usage | None:
        """Reads only the usage of a whole answer: for bytes that pass through. None where there is none."""
        ...

    def usage_tap(self) -> "UsageTap": ...


class UsageTap(Protocol):
    """Reads only the usage of a stream that passes through, at under a microsecond a chunk."""

    def feed(self, data: bytes) -> None: ...

    def mould(self, event: bytes) -> "tuple[bytes, bytes] | None":
        """Of a whole event that says nothing of usage or end: how those begin that differ from it in a text alone, and what they have
        behind the text. Events of that mould need not be fed. None where there is no telling.
        """
        ...

    @property
    def usage(self) -> Usage | None: ...

    @property
    def finished(self) -> bool: ...


class EmbeddingWire(Protocol):
    """A vendor's format for turning texts into vectors, both directions, pure. One file a wire: its `EMBEDDINGS`."""

    name: ClassVar[str]

    def decode_request(self, body: bytes) -> EmbeddingRequest:
        """Raises BadRequest with the path of what is wrong."""
        ...

    def encode_request(self, request: EmbeddingRequest) -> bytes: ...
    def decode_response(self, body: bytes) -> EmbeddingResponse: ...

    def encode_response(self, response: EmbeddingResponse, *, request: EmbeddingRequest) -> bytes:
        """`request` says how its client wants the numbers."""
        ...

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError: ...
    def encode_error(self, error: FreeholdError, request_id: str) -> ErrorBody: ...
    def usage_of(self, body: bytes) -> Usage | None: ...


# -------------------------------------------------------------------------------------------- providers


class ModelInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the catalog knows of a model; None is not known. `name` is the provider's own. One that `embeds` writes nothing."""

    provider: str
    name: str
    display_name: str = ""
    context_tokens: int | None = None
    output_tokens_max: int | None = None
    images: bool | None = None
    documents: bool | None = None
    audio: bool | None = None
    tools: bool | None = None
    reasoning: bool | None = None
    json_schema: bool | None = None
    embeds: bool | None = None
    price: ModelPrice | None = None


P_co = TypeVar("P_co", covariant=True)


@runtime_checkable
class Pours(Protocol[P_co]):
    """Of a stream: another way to read it than iterating. One may begin by that and go on by this."""

    async def pour(self, take: Callable[[P_co], bool], drained: Callable[[], Awaitable[object]]) -> None:
        """Hands every piece to `take` as it comes, without waking anybody for it; returns at the end.

        `take` must not wait. Where it says False, `drained` is awaited before the next piece is handed over that is not
        here yet, and the sender is held back. Raises what they raise, and what iterating would.
        """
        ...


class Chunks(Pours[bytes], Protocol):
    """A stream's bytes, read once."""

    def __aiter__(self) -> "Chunks": ...
    async def __anext__(self) -> bytes: ...


class RawAnswer(Protocol):
    """A provider's answer as bytes, for passing through. Leaving the context early hangs up on the provider."""

    status: int
    content_type: str

    def chunks(self) -> Chunks: ...
    async def read(self) -> bytes: ...


class Provider(Protocol):
    """Where models live. Translates every fault into FreeholdErrors; never retries by itself."""

    name: str
    wire: str | None
    """The wire that `forward` speaks; None where bytes can't pass through (rules)."""

    is_language_model: bool
    """False for `rules`: every screen that shows its answers says that no language model was asked."""

    def call(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[StreamEvent]]:
        """Entering sends the request and raises what the provider refused it with, before any event.

        What comes over a network should be `Pours[Sequence[StreamEvent]]`, too: events that came together are taken together.
        """
        ...

    def forward(
        self, body: bytes, *, model: str, stream: bool, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[RawAnswer]:
        """The body goes out as it is, with our credentials. Entering raises on any status but 200.

        `model` is the provider's own name, for wires that say it in the address; in the others the body has it too.

        `headers` are the client's, names lower-cased: only those go along that belong to the wire (`anthropic-beta`).
        """
        ...

    async def models(self) -> Sequence[ModelInfo]: ...


@runtime_checkable
class CountsTokens(Protocol):
    """A provider whose vendor says how many tokens a request has. For the others it is estimated."""

    async def count(self, request: ModelRequest) -> int:
        """Raises as `call` does, and NotFound where this address doesn't count after all."""
        ...

    async def count_passed(self, body: bytes, *, model: str, headers: Mapping[str, str]) -> int:
        """The same for a body in the provider's own wire. `model` and `headers` are as in `forward`."""
        ...


@runtime_checkable
class Embeds(Protocol):
    """A provider that turns texts into vectors for clients of any wire of embeddings.

    One whose `wire` is the client's own gets the bytes through `forward` instead.
    """

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResponse:
        """`request.model` is the provider's own name. Raises as `call` does, and Unsupported with the path of what cannot be said."""
        ...


# ------------------------------------------------------------------------------------------------ tools


class ToolFunction(Struct, frozen=True):
    """What a model sees of a tool. `spec.name` is unique within its tool; the runtime puts the tool's name before it.

    `settled_by`: who gives its result. `client` and `timer` functions are never `run`: the session waits for the client's
    result, or until the time that the arguments name (`seconds` from now, or `until`, RFC 3339).
    """

    spec: ToolSpec
    effect: Effect
    settled_by: Literal["run", "client", "timer"] = "run"


class ToolRun(Struct, frozen=True, kw_only=True):
    """`key` is the same on every attempt of the same step: hand it on as the idempotency key. `call_id` is the model's call. `hosts`
    are those that the session's environment lets tools reach (environments.reaches), None: any; a kind that can't tell refuses.
    `cost_left_pico` is its share of what its session may still cost; None: no limit says."""

    function: str
    arguments: JsonObject
    key: str
    timeout_s: float
    principal: Principal
    session_id: str | None = None
    call_id: str = ""
    hosts: tuple[str, ...] | None = None
    cost_left_pico: int | None = None


class ToolOutcome(Struct, frozen=True, omit_defaults=True):
    """`failed` is the tool's own "no" (a 404, an SQL error): an answer for the model. Faults of reaching it are exceptions.

    With `awaits`, the tool has only begun: the session waits, for `awaits_s` seconds at most, until an outside event or another
    session gives the result; `content` is then not looked at.
    """

    content: tuple[Text | Media, ...] = ()
    failed: bool = False
    cost_pico: int = 0
    awaits: AwaitsEvent | AwaitsSession | None = None
    awaits_s: float | None = None


class OpenTool(Protocol):
    functions: Sequence[ToolFunction]

    async def run(self, run: ToolRun) -> ToolOutcome:
        """Raises BadRequest for arguments that don't fit (with the path), TimedOut, Unavailable, TooLarge, Forbidden."""
        ...


class ToolHost(Protocol):
    """What Freehold lends to a tool: nothing else of it is within a tool's reach."""

    def secret(self, reference: str) -> str:
        """The value behind `env:NAME` or `file:PATH`. Raises NotFound naming the reference, never the value."""
        ...

    async def database_url(self, name: str) -> str:
        """The read-only address of a database that Freehold keeps for applications. Raises NotFound."""
        ...

    @property
    def key_values(self) -> "KeyValues": ...

    @property
    def objects(self) -> "Objects": ...

    @property
    def sessions(self) -> "ChildSessions": ...

    @property
    def function_folders(self) -> Sequence[str]:
        """Folders of the operator's own Python files that `function` tools may name."""
        ...


class Delegation(Struct, frozen=True, kw_only=True):
    """`depth_max` bounds how many sessions stand above the new one, `children_max` how many work for its parent at once."""

    agent: str
    task: str
    model: str | None
    depth_max: int
    children_max: int


class ChildSessions(Protocol):
    """Sessions that work for the session of a tool run."""

    async def start(self, run: ToolRun, wanted: Delegation) -> str:
        """The new session's id; for the same run, the same. Raises NotFound for the agent, LimitReached for depth and number."""
        ...


class ToolKind(Protocol):
    """One file a kind, found by its name. `config` is a msgspec Struct type (forbid_unknown_fields) for Tool.config."""

    name: ClassVar[str]
    config: ClassVar[type[Struct]]

    def open(self, tool: Tool, config: Any, host: ToolHost) -> AbstractAsyncContextManager[OpenTool]: ...


# ------------------------------------------------------------------------------------------------ store


class LiveChannel(Protocol):
    """What processes tell each other and nobody keeps. Every process hears what any tells, itself included; some may be lost."""

    def hear(self, hearer: Callable[[str], None]) -> None:
        """`hearer` must not wait. One for a process."""
        ...

    async def tell(self, payloads: Sequence[str]) -> None:
        """In order; each at most 7999 bytes. Raises Unavailable."""
        ...


class Versioned(Struct, frozen=True, kw_only=True):
    resource: Resource
    version: int
    created_at: datetime
    updated_at: datetime
    created_by: str = ""
    archived: bool = False


class Resources(Protocol):
    """Every version is kept. `put` of what is already there makes no new version."""

    async def get(self, tenant: str, kind: Kind, name: str, *, version: int | None = None) -> Versioned:
        """Raises NotFound, listing near names."""
        ...

    async def list(
        self, tenant: str, kind: Kind | None = None, *, archived: bool = False
    ) -> Sequence[Versioned]:
        """`archived`: those too. Without a kind, of all but deployments: programs make those by the thousand."""
        ...

    async def versions(self, tenant: str, kind: Kind, name: str) -> Sequence[Versioned]: ...

    async def put(
        self,
        tenant: str,
        resources: Sequence[Resource],
        *,
        by: str,
        expected: Mapping[tuple[Kind, str], int] | None = None,
    ) -> Sequence[Versioned]:
        """All or nothing. Raises Conflict where a resource is not at its `expected` version (0: does not exist)."""
        ...

    async def archive(self, tenant: str, kind: Kind, name: str, *, by: str) -> None: ...

    async def delete_environment(self, tenant: str, name: str) -> None:
        """With all its versions. Raises NotFound; Conflict where a session is in it."""
        ...

    def generation(self) -> int:
        """Grows with every change that this process knows of, also other processes' (LISTEN): for caches."""
        ...


class CallRecords(Protocol):
    def add(self, record: CallRecord) -> None:
        """Never waits for the database; written in batches. Raises nothing."""
        ...

    @property
    def waiting_count(self) -> int:
        """Added here, and not known to be written."""
        ...

    async def flush(self) -> None: ...
    async def list(
        self, tenant: str, *, limit: int = 100, session_id: str | None = None
    ) -> Sequence[CallRecord]: ...


class Costs(Protocol):
    """Sums of what CallRecords has written. Days are UTC's: from `first`, before `end`."""

    async def sums(
        self, tenant: str, *, first: date, end: date, by: Sequence[Dimension]
    ) -> Sequence[CostSum]:
        """One for each group, price source and currency. Raises TooLarge where there are more than can be told."""
        ...

    async def recounted(self, tenant: str, *, first: date, end: date) -> Sequence[CostSum]:
        """As `sums` by nothing, but from every single record: slow, and always the same."""
        ...


class Experiments(Protocol):
    """How far canaries are, for all processes; what records and feedback say of a route's arms. Raises Unavailable."""

    async def state(self, tenant: str, route: str, canary: Canary, now: datetime) -> CanaryState:
        """Begins `now` where there is none, and anew where its declaration has changed."""
        ...

    async def seen(self, tenant: str, route: str, canary: Canary, since: datetime) -> Seen: ...
    async def take(
        self, tenant: str, route: str, canary: Canary, before: CanaryState, step: Step, now: datetime
    ) -> bool:
        """False where another process changed it since `before`."""
        ...

    async def steps(self, tenant: str, route: str) -> Sequence[CanaryStep]:
        """Newest first; so many of late as a person may want to see."""
        ...

    async def sums(self, tenant: str, route: str, *, since: datetime, currency: str) -> Sequence[ArmSums]: ...
    async def add(self, feedback: Feedback) -> bool:
        """False where no record of the call is there."""
        ...


class KeyRow(Struct, frozen=True, kw_only=True):
    """An API key as kept: `digest` is HMAC-SHA-256 of the secret under the installation's pepper."""

    id: str
    tenant: str
    name: str
    digest: bytes
    policy: Policy
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    team: str | None = None
    user: str | None = None
    labels: tuple[str, ...] = ()


class Keys(Protocol):
    async def add(self, key: KeyRow) -> None: ...
    async def list(self, tenant: str | None) -> Sequence[KeyRow]: ...

    async def revoke(self, tenant: str, key_id: str) -> KeyRow:
        """Idempotent. Raises NotFound."""
        ...

    async def changed(self, timeout_s: float) -> None:
        """Returns when some process changed a key, or after `timeout_s`."""
        ...


class KeyValuePage(Struct, frozen=True):
    items: tuple[tuple[str, Any], ...]
    next: str | None


class KeyValues(Protocol):
    """Tables of JSON values by key, for applications. Keys sort as bytes."""

    async def get(self, tenant: str, table: str, keys: Sequence[str]) -> Mapping[str, Any]: ...

    async def scan(
        self, tenant: str, table: str, *, prefix: str = "", limit: int = 100, cursor: str | None = None
    ) -> KeyValuePage: ...

    async def put(self, tenant: str, table: str, items: Mapping[str, Any]) -> int: ...
    async def delete(self, tenant: str, table: str, keys: Sequence[str]) -> int: ...
    async def tables(self, tenant: str) -> Mapping[str, int]: ...


class ObjectInfo(Struct, frozen=True):
    key: str
    size_bytes: int
    modified_at: datetime


class ObjectPage(Struct, frozen=True):
    objects: tuple[ObjectInfo, ...]
    next: str | None


class Objects(Protocol):
    """Bytes by key, per tenant: a folder, or S3-compatible. Keys are `/`-separated, relative, without `..`."""

    async def get(self, tenant: str, key: str, *, start: int = 0, size_max: int) -> bytes:
        """Raises NotFound; TooLarge where more than `size_max` bytes would come and `start` was not asked for."""
        ...

    async def head(self, tenant: str, key: str) -> ObjectInfo: ...
    async def list(
        self, tenant: str, *, prefix: str = "", limit: int = 100, cursor: str | None = None
    ) -> ObjectPage: ...
    async def put(self, tenant: str, key: str, data: bytes) -> None: ...
    async def delete(self, tenant: str, key: str) -> None: ...
