"""What is said to a model and what it answers, in words of no vendor.

A wire decodes a client's request to these and encodes them for a provider. Three rules carry all translation:

* A field that only one wire has rides in `extra[wire]` as raw JSON, and leaves only through the same wire.
* A content block that only one wire has is a `Carried` part: its bytes leave only through the same wire.
* What a wire cannot say is refused with `Unsupported` and the path. It is never dropped.

What a conversation has many of is kept out of the collector's sight (`gc=False`): values that are made of older ones, and never
changed, form no circle.
"""

from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Raw, Struct

JsonObject: TypeAlias = dict[str, Any]
"""Parsed JSON whose shape is somebody else's business (a tool's arguments). Past a decode function, our types only."""

Extra: TypeAlias = dict[str, dict[str, Raw]]
"""wire name -> field name -> the field's JSON, byte for byte."""


class Opaque(Struct, frozen=True, omit_defaults=True):
    """A vendor's sealed data (a thinking signature, encrypted reasoning, a thought signature): never read, only returned.

    Goes back only to the provider and wire that it came from; elsewhere it is left out and the conversation still holds.
    """

    wire: str
    provider: str
    model: str
    data: str
    kind: str = "signature"


class Text(Struct, frozen=True, tag="text", omit_defaults=True, gc=False):
    """`cache` marks the end of a prefix that the vendor should cache (Anthropic's cache_control): its time to live."""

    text: str
    cache: Literal["5m", "1h"] | None = None
    extra: Extra = {}


class Refusal(Struct, frozen=True, tag="refusal", omit_defaults=True):
    """The model's own words in declining (OpenAI's `refusal`)."""

    text: str


class Reasoning(Struct, frozen=True, tag="reasoning", omit_defaults=True):
    """Thinking. `text` may be empty where the vendor sends it sealed only (redacted or encrypted)."""

    text: str = ""
    opaque: Opaque | None = None


class Bytes(Struct, frozen=True, tag="bytes"):
    data: bytes


class Address(Struct, frozen=True, tag="url"):
    url: str


class VendorFile(Struct, frozen=True, tag="file"):
    """A file that was uploaded to one vendor: means something only there."""

    wire: str
    id: str


MediaSource: TypeAlias = Bytes | Address | VendorFile
MediaKind: TypeAlias = Literal["image", "audio", "document", "video"]


class Media(Struct, frozen=True, tag="media", omit_defaults=True):
    """`media_type` is the MIME type; may be empty for an address. `detail` is OpenAI's image detail."""

    kind: MediaKind
    media_type: str
    source: MediaSource
    name: str | None = None
    detail: str | None = None
    cache: Literal["5m", "1h"] | None = None
    extra: Extra = {}


class ToolCall(Struct, frozen=True, tag="tool_call", omit_defaults=True, gc=False):
    """`arguments` is the JSON text exactly as the model wrote it: it may be empty (a tool without parameters), or invalid.

    `id` is empty where a vendor gives its calls none: see `stream.identified`.
    """

    id: str
    name: str
    arguments: str
    opaque: Opaque | None = None
    cache: Literal["5m", "1h"] | None = None
    extra: Extra = {}


class ToolResult(Struct, frozen=True, tag="tool_result", omit_defaults=True, gc=False):
    call_id: str
    content: "tuple[Text | Media | Carried, ...]"
    failed: bool = False
    cache: Literal["5m", "1h"] | None = None
    extra: Extra = {}


class Carried(Struct, frozen=True, tag="carried"):
    """A content block that only `wire` knows, as JSON. Encoding it for any other wire raises Unsupported."""

    wire: str
    type: str = msgspec.field(name="block_type")  # Encoded as `type`, it would clash with the tag.
    block: Raw


Part: TypeAlias = Text | Refusal | Reasoning | Media | ToolCall | ToolResult | Carried
Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


class Message(Struct, frozen=True, omit_defaults=True, gc=False):
    """`tool` messages hold only ToolResults, and no two stand side by side: wires merge and split as their vendor wants.

    `system` here is one in the middle of a conversation; the ones before it are `ModelRequest.instructions`.
    """

    role: Role
    content: tuple[Part, ...]
    name: str | None = None
    extra: Extra = {}


class ToolSpec(Struct, frozen=True, omit_defaults=True):
    """`parameters` is a JSON Schema object, as raw JSON: kept as it came, since order matters for vendors' prompt caches."""

    name: str
    description: str = ""
    parameters: Raw = Raw(b'{"type":"object","properties":{}}')
    strict: bool | None = None
    cache: Literal["5m", "1h"] | None = None
    extra: Extra = {}


class CarriedTool(Struct, frozen=True, tag="carried_tool"):
    """A vendor's own tool (web search, computer use), as JSON. Leaves only through the same wire."""

    wire: str
    type: str = msgspec.field(name="tool_type")
    spec: Raw


class ToolChoice(Struct, frozen=True, omit_defaults=True):
    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str | None = None
    parallel: bool | None = None


class JsonOutput(Struct, frozen=True, omit_defaults=True):
    """Structured output. Without a schema: any JSON object."""

    schema: Raw | None = None
    name: str = "answer"
    description: str | None = None
    strict: bool | None = None


class ReasoningSetting(Struct, frozen=True, omit_defaults=True):
    """`effort` in words (`none` to `max`, as vendors have them), or a budget in tokens. `enabled=False` switches it off."""

    enabled: bool = True
    effort: str | None = None
    budget_tokens: int | None = None


class ModelRequest(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One call to a model. `model` is what the caller wrote: `provider/name`, or the name of a route."""

    model: str
    messages: tuple[Message, ...]
    instructions: tuple[Text, ...] = ()
    tools: tuple[ToolSpec | CarriedTool, ...] = ()
    tool_choice: ToolChoice | None = None
    output: JsonOutput | None = None
    reasoning: ReasoningSetting | None = None
    tokens_max: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    user: str | None = None
    stream: bool = False
    extra: Extra = {}


StopReason: TypeAlias = Literal[
    "end_turn", "tokens_max", "stop_sequence", "tool_use", "refusal", "pause", "context_full"
]
"""`refusal` also stands for a vendor's content filter; `pause` for Anthropic's pause_turn."""


class Usage(Struct, frozen=True, omit_defaults=True):
    """Tokens. `input_tokens` counts *all* input, cached or not, and `output_tokens` *all* output, reasoning included; the
    other fields are parts of these two. (OpenTelemetry's gen_ai.usage.* means the same; Anthropic's `input_tokens` doesn't.)
    `estimated` is true when we counted, not the vendor (a stream cut before its usage came).
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    estimated: bool = False

    def plus(self, other: "Usage") -> "Usage":
        if other == NO_USAGE:
            return self
        if self == NO_USAGE:
            return other
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            cache_write_1h_tokens=self.cache_write_1h_tokens + other.cache_write_1h_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            input_audio_tokens=self.input_audio_tokens + other.input_audio_tokens,
            output_audio_tokens=self.output_audio_tokens + other.output_audio_tokens,
            estimated=self.estimated or other.estimated,
        )


NO_USAGE: Final = Usage()


AnswerPart: TypeAlias = Text | Refusal | Reasoning | Media | ToolCall | Carried


class ModelResponse(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A whole answer: `fold` of its stream. `model` is what the provider says answered."""

    id: str
    model: str
    content: tuple[AnswerPart, ...]
    stop_reason: StopReason
    usage: Usage = Usage()
    stop_sequence: str | None = None
    extra: Extra = {}

    def text(self) -> str:
        return "".join(part.text for part in self.content if isinstance(part, Text))

    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(part for part in self.content if isinstance(part, ToolCall))


def text_of(parts: tuple[Part, ...] | tuple[AnswerPart, ...]) -> str:
    return "".join(part.text for part in parts if isinstance(part, Text))


def raw(value: object) -> Raw:
    """`value` as raw JSON."""
    return Raw(msgspec.json.encode(value))
